"""The most memory that a bridge takes at full speed."""

from __future__ import annotations

from tests.bench.feeds import Feed
from tests.bench.ground import Ground

__all__ = ["measure"]

_CASES = (("mix", "protobuf"), ("mix", "json"), ("reveal", "protobuf"), ("block", "protobuf"))
_SHARE = 0.5


def measure(ground: Ground) -> dict[str, dict[str, float]]:
    """Return the peak of resident memory (MB), by size and format, with both sinks."""
    found = {}
    for method, format_ in _CASES:
        feed = ground.feed(method, _SHARE)
        found[f"{method} both {format_}"] = ground.repeat(
            f"memory {method} both {format_}",
            _run,
            ground,
            format_,
            feed,
        )
        if method != "mix" or format_ == "json":
            ground.forget(method)
    return found


def _run(ground: Ground, format_: str, feed: Feed) -> dict[str, float]:
    return {"peak_mb": ground.play("both", format_, feed).peak_mb}
