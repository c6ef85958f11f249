"""Memory with a deep backlog: nothing is published, and millions of events wait in the journal."""

from __future__ import annotations

import time

from tests.bench.bridges import Untrue
from tests.bench.feeds import FeedMaker
from tests.bench.ground import MB, Ground, sending

__all__ = ["measure"]

_SETTLE_SECONDS = 2
_MOST_SECONDS = 300


def measure(ground: Ground) -> dict[str, float]:
    """Return how many events wait, and the memory (MB) then and at the most."""
    count = ground.options.deep
    data = b"".join(FeedMaker(5).commits(count))
    return ground.repeat(f"deep backlog of {count:,}", lambda: _run(ground, data, count))


def _run(ground: Ground, data: bytes, count: int) -> dict[str, float]:
    with ground.bridge("journal") as bridge:
        with sending(data, bridge.feed_port):
            deadline = time.monotonic() + _MOST_SECONDS
            while bridge.progress().accepted < count:
                if time.monotonic() > deadline:
                    raise Untrue(f"the bridge does not get further than {bridge.progress()}")
                time.sleep(0.1)
        # The tracker is behind, and takes memory of its own.
        time.sleep(_SETTLE_SECONDS)
        bridge.check(0)
        return {
            "events": count,
            "waiting_mb": bridge.memory_bytes() / MB,
            "peak_mb": bridge.peak_bytes() / MB,
        }
