"""The tracker of heights on a long chain with random holes.

    python -m tests.bench.heights

Prints the cost per block of the second half beside that of the first, the size of the state, and
the time until a tracker is restored from it.
"""

from __future__ import annotations

import random
import time

from bridge.core.heights import Heights
from bridge.core.verify import Verification
from bridge.model import Way
from tests.support.chains import BOUNDS, MadeChain, verification

__all__ = ["measure"]


def measure(heights: int = 200_000, holes: float = 0.02, seed: int = 6) -> dict[str, float]:
    """Feed a chain of `heights`, of which a part of `holes` is lost; return the figures."""
    lost, chain = random.Random(seed), MadeChain()
    items: dict[str, bytes] = {}
    tracker = Heights((), 0.0, BOUNDS)
    halves = [0.0, 0.0]
    for height in range(heights):
        made = chain.block(height)
        if height and lost.random() < holes:
            continue
        verified: Verification = verification(made, None)
        # Ten seconds a block: the gaps open one after the other, as they do in life.
        now, at_ns = height * 10.0, height * 10_000_000_000
        began = time.process_time()
        tracker.told(height, now, at_ns)
        tracker.links_below(height)
        tracker.block(height, verified, made.previous_key, Way.LIVE, now, at_ns)
        tracker.tick(now, at_ns)
        _, changed = tracker.take()
        halves[height >= heights // 2] += time.process_time() - began
        for name, value in changed.items():
            if value is None:
                items.pop(name, None)
            else:
                items[name] = value
    began = time.process_time()
    restored = Heights(items.items(), 0.0, BOUNDS)
    restoring = time.process_time() - began
    began = time.process_time()
    ranges = len(restored.missing_ranges())
    asking = time.process_time() - began
    first, second = (each / (heights / 2) * 1e6 for each in halves)
    return {
        "heights": heights,
        "gaps": len(restored.gaps),
        "missing": restored.missing,
        "missing_ranges": ranges,
        "first_half_us_per_block": round(first, 1),
        "second_half_us_per_block": round(second, 1),
        "ratio": round(second / first, 3),
        "rows": len(items),
        "state_bytes": sum(len(name) + len(value) for name, value in items.items()),
        "restore_seconds": round(restoring, 3),
        "missing_ranges_seconds": round(asking, 4),
    }


if __name__ == "__main__":
    for name, figure in measure().items():
        print(f"{name:>26} {figure:>12,}")
