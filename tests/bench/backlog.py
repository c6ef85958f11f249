"""A sink that is away while events go on, and the drain when it is back, beside live events.

The rate of the drain is that of all that is published from the first batch on until the backlog is
through, live events among it. It stands beside the rate at which the same events are published
when nothing is in the way.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.bench.bridges import BenchBridge, Progress, Untrue
from tests.bench.feeds import Feed, FeedMaker
from tests.bench.ground import MB, Ground, sending

__all__ = ["measure"]

_LIVE_PER_SECOND = 1_000
_MOST_SECONDS = 300


def measure(ground: Ground) -> dict[str, dict[str, float]]:
    """Return rates in events/s, memory in MB, by target."""
    made = FeedMaker(4)
    feed = Feed(made.commits(ground.options.backlog))
    live = made.commits(_LIVE_PER_SECOND * _MOST_SECONDS)
    found = {}
    for target in ("kafka", "nats always"):
        found[target] = ground.repeat(
            f"backlog {target}",
            _run,
            ground,
            target,
            feed,
            live,
        )
        found[target]["of_live"] = round(found[target]["drain"] / found[target]["live"], 3)
    return found


def _run(ground: Ground, target: str, feed: Feed, live: list[bytes]) -> dict[str, float]:
    drained = _drained(ground, target, feed.frames, live)
    return drained | {"live": ground.play(target, "protobuf", feed).published}


def _drained(
    ground: Ground, target: str, frames: list[bytes], live: list[bytes]
) -> dict[str, float]:
    broker = ground.kafka if target == "kafka" else ground.nats[target]
    count = len(frames)
    broker.pause()
    try:
        with ground.bridge(target) as bridge:
            with sending(frames, bridge.feed_port):
                _until(bridge, lambda progress: progress.accepted >= count)
            waiting = bridge.memory_bytes()
            with sending(live, bridge.feed_port, _LIVE_PER_SECOND):
                broker.resume()
                first, began = _until(bridge, lambda progress: progress.published > 0)
                last, ended = _until(bridge, lambda progress: progress.published >= count)
            peak = bridge.peak_bytes()
            bridge.check(0)
    finally:
        broker.resume()
    seconds = ended - began
    return {
        "backlog": count,
        "drain": (last.published - first.published) / seconds,
        "live_meanwhile": (last.accepted - first.accepted) / seconds,
        "waiting_mb": waiting / MB,
        "peak_mb": peak / MB,
    }


def _until(bridge: BenchBridge, is_so: Callable[[Progress], bool]) -> tuple[Progress, float]:
    deadline = time.monotonic() + _MOST_SECONDS
    while True:
        progress = bridge.progress()
        if is_so(progress):
            return progress, time.perf_counter()
        if time.monotonic() > deadline:
            raise Untrue(f"the bridge does not get further than {progress}")
        time.sleep(0.01)
