"""Chooses how messages go to JetStream: in a chain, or as an atomic batch.

In a chain each message names the id of the one that it is to stand behind, and is stored at once:
12 us each where the server does not sync every write, 300 us and more where it does. An atomic batch
is written twice and synced once: 25 us a message, and 5 to 15 ms for itself
(docs/decisions/0015). No server tells how it syncs, so both are tried out, one after the other.
"""

from __future__ import annotations

__all__ = ["FEW", "MOST", "Ways"]

MOST = 1_000
"""Messages that an atomic batch may hold (server error 10199)."""
FEW = 8
"""So many never go as an atomic batch, for which the server makes and removes files."""

_LEAST_TRIED, _CHAIN_TRIED = 64, 512
"""Messages needed for a trial, and most of them that are the chain: 0.15 s where it is slow."""
_CLEARLY = 2
"""A chain must take so many times as long to be the slower one: few messages tell less than many."""
_SOON, _LATE = 100, 1_600
"""Lists of messages after which they are tried again: a trial may have been disturbed. Each time
it is longer, for a trial costs something.
"""


class Ways:
    """The ways to one stream: whether it takes atomic batches, and chains."""

    def __init__(self, *, has_atomic: bool, has_chains: bool = True) -> None:
        self._has_chains, self._has_both = has_chains, has_atomic and has_chains
        self._is_chain_slow = has_atomic
        self._left = 0
        self._wait = _SOON

    def is_chain(self, count: int) -> bool:
        """Say whether `count` messages go in a chain."""
        if not self._has_chains or self.trial(count):
            return False
        return count <= FEW or not self._is_chain_slow

    def trial(self, count: int) -> int:
        """Return how many of `count` messages are to be tried in a chain now, the others not."""
        if not self._has_both or count < _LEAST_TRIED or self._left > 0:
            return 0
        return min(_CHAIN_TRIED, count // 2)

    def tried(self, chain: float, atomic: float) -> None:
        """Take the seconds for a message, by either way."""
        self._is_chain_slow = chain > _CLEARLY * atomic
        self._left = self._wait
        self._wait = min(_LATE, 2 * self._wait)

    def sent(self) -> None:
        """Note that one more list of messages was sent."""
        self._left -= 1
