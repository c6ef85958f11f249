"""What an operator asks: what is missing, to fetch it, and what became of one hash or height.

`gaps` and `backfill` ask the bridge that runs; `explain` reads the journal and the brokers, and
needs no bridge.
"""

from bridge.asking.backfill import backfill_shown
from bridge.asking.explain import explain_shown
from bridge.asking.gaps import gaps_shown

__all__ = ["backfill_shown", "explain_shown", "gaps_shown"]
