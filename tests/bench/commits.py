"""How long a commit takes, sync included, at half of the rate that a bridge accepts."""

from __future__ import annotations

import statistics
import time

from tests.bench.bridges import Untrue
from tests.bench.feeds import Feed, FeedMaker
from tests.bench.ground import Ground, sending
from tests.support.bridge_process import Metrics

__all__ = ["measure", "quantile"]

_SECONDS = 4
_MIX_SHARE = 3
_LATE_SECONDS = 30


def measure(ground: Ground) -> dict[str, dict[str, float]]:
    """Return, for small events and the mix, the rate and the p50 and p99 of a commit in ms."""
    found = {}
    for method in ("commit", "mix"):
        feed = ground.feed(method, 1 if method == "commit" else _MIX_SHARE)
        half = _accepted(ground, feed) / 2
        if method == "commit":
            # Small events are too fast for the usual amount: it is over in a moment, and what the
            # disk can be given for a moment is not what it takes all the time.
            count = int(half * max(1, _SECONDS * ground.options.scale))
            feed = Feed(FeedMaker(2).commits(count))
            half = _accepted(ground, feed) / 2
        found[method] = ground.repeat(
            f"commits, {method} at {half:,.0f}/s", _run, ground, feed, half
        )
        ground.forget(method)
    return found


def _accepted(ground: Ground, feed: Feed) -> float:
    runs = [ground.play("journal", "protobuf", feed).accepted for _ in range(ground.options.runs)]
    return statistics.median(runs)


def _run(ground: Ground, feed: Feed, rate: float) -> dict[str, float]:
    with ground.bridge("journal") as bridge:
        count = len(feed.frames)
        with sending(feed.frames, bridge.feed_port, rate) as began:
            deadline = time.monotonic() + count / rate + _LATE_SECONDS
            while bridge.progress().accepted < count:
                if time.monotonic() > deadline:
                    raise Untrue(f"half of the rate is too much: {bridge.progress()} of {count}")
                # Seldom: asking takes time of the very loop that is measured.
                time.sleep(0.1)
            took = time.perf_counter() - began.value
        metrics = bridge.metrics()
        bridge.check(feed.blocks)
    return {
        "rate": rate,
        "accepted": count / took,
        "commits": metrics.total("bridge_commit_seconds_count"),
        "p50_ms": quantile(metrics, 0.5) * 1000,
        "p99_ms": quantile(metrics, 0.99) * 1000,
    }


def quantile(metrics: Metrics, share: float) -> float:
    """Return the seconds within which `share` of the commits were done, straight within a bucket."""
    buckets = metrics.by("bridge_commit_seconds_bucket", "le")
    counts = sorted((float(bound), count) for bound, count in buckets.items())
    wanted = share * counts[-1][1]
    lower, below = 0.0, 0.0
    for bound, count in counts:
        if count >= wanted:
            if bound == float("inf"):
                return bound
            return lower + (bound - lower) * (wanted - below) / (count - below)
        lower, below = bound, count
    raise Untrue("there was no commit")
