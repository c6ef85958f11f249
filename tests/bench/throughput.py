"""How fast events go from the socket into the journal and to the brokers, beside a plain script."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from tests.bench.feeds import SIZES, Feed
from tests.bench.ground import MB, Ground, sending
from tests.bench.reference import kafka_script, nats_script

__all__ = ["measure"]

_SCRIPTS = ("script kafka", "script nats", "script nats always")
_PROTOBUF, _BOTH = ("protobuf",), ("protobuf", "json")
_CASES: dict[str, dict[str, tuple[str, ...]]] = {
    "commit": {
        "journal": _PROTOBUF,
        "kafka": _PROTOBUF,
        "nats": _PROTOBUF,
        "nats always": _PROTOBUF,
        "both": _PROTOBUF,
        "script kafka": _PROTOBUF,
    },
    "mix": {
        "journal": _PROTOBUF,
        "kafka": _BOTH,
        "nats": _BOTH,
        "nats always": _BOTH,
        "both": _BOTH,
        "both always": _PROTOBUF,
        **dict.fromkeys(_SCRIPTS, _PROTOBUF),
    },
    "reveal": {"journal": _PROTOBUF, "kafka": _PROTOBUF, "nats": _PROTOBUF},
    "block": {"journal": _PROTOBUF, "kafka": _PROTOBUF},
}
"""By size and target, the formats: what the demands of issue 8 need, and little more."""


def measure(ground: Ground) -> dict[str, dict[str, float]]:
    """Return, by size, target and format, the medians of `ground.Figures`."""
    found = {}
    for method, target, format_ in _cases(ground):
        feed = ground.feed(method)
        name = f"{method} {target} {format_}".strip()
        found[name] = ground.repeat(name, _run, ground, target, format_, feed)
    for method in SIZES.values():
        ground.forget(method)
    return found


def _cases(ground: Ground) -> Iterator[tuple[str, str, str]]:
    chosen = ground.options
    for method, targets in _CASES.items():
        for target, formats in targets.items():
            for format_ in formats:
                if (
                    (not chosen.sizes or method in chosen.sizes)
                    and (not chosen.to or target in chosen.to)
                    and (not chosen.formats or format_ in chosen.formats)
                ):
                    yield method, target, "" if target in {*_SCRIPTS, "journal"} else format_


def _run(ground: Ground, target: str, format_: str, feed: Feed) -> dict[str, float]:
    if target not in _SCRIPTS:
        return ground.play(target, format_ or "protobuf", feed)._asdict()
    count = len(feed.frames)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with sending(feed.frames, port), ground.in_the_place_of_the_bridge():
            if target == "script kafka":
                took = kafka_script(listening, ground.kafka.bootstrap)
            else:
                server = ground.nats[target.removeprefix("script ")]
                took = nats_script(listening, server.url, count)
    return {
        "accepted": count / took.seconds,
        "published": count / took.seconds,
        "megabytes": feed.size / took.seconds / MB,
        "cpu": took.cpu / count * 100_000,
    }
