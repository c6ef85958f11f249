"""Learns how fast blocks and minutes come, and says when they stay away.

Each is expected a small multiple of its usual time after the last one. What is usual is the median
of the latest intervals: an outage, or a burst of blocks that a node catches up on, is no pace.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

import orjson

__all__ = ["Pace"]

_ROW = "heights/pace"
_LATEST = 20
"""Intervals that are remembered."""
_ENOUGH = 3
"""Intervals from which on they are a pace."""
_BURST = 12
"""What comes in this part of the shortest stall is no pace: two nodes tell the same minute, or one
catches up."""
_MINUTES, _BLOCKS = 3.0, 2.5
"""Multiples of the pace after which minutes and blocks are late."""


class Pace:
    """When the last block and minute came. All times are monotonic seconds."""

    def __init__(
        self, items: Iterable[tuple[str, bytes]], now: float, *, shortest: float, longest: float
    ) -> None:
        """Take what was stored; what is waited for is waited for anew."""
        self._shortest = shortest
        self._longest = longest
        self._blocks: list[float] = []
        self._minutes: list[float] = []
        self._last_block = self._last_sign = self._last_heard = now
        self._block_mark: float | None = None
        self._minute_mark: float | None = None
        self._dirty = False
        for name, value in items:
            if name == _ROW:
                self._blocks, self._minutes = orjson.loads(value)

    def block(self, now: float) -> None:
        """Note that the chain grew by a live block."""
        self._last_block = self._last_sign = self._last_heard = now
        self._block_mark = self._learn(self._blocks, self._block_mark, now)

    def minute(self, now: float) -> None:
        """Note that a node told on which height it works."""
        if now - self._last_sign >= self._limit(self._minutes, _MINUTES):
            # After a silence a block is waited for anew.
            self._last_block = now
        self._last_sign = self._last_heard = now
        self._minute_mark = self._learn(self._minutes, self._minute_mark, now)

    def heard(self, now: float) -> None:
        """Note that anything came from a node."""
        self._last_heard = now

    def silent(self, now: float) -> bool:
        """Whether nothing at all came since the last block or minute was late."""
        return now - self._last_heard >= self._shortest

    def late(self, now: float) -> str:
        """Return what stays away longer than expected, as a sentence; empty if nothing does."""
        minutes = self._limit(self._minutes, _MINUTES)
        if now - self._last_sign >= minutes:
            return f"neither a block nor a minute came for {minutes:.0f} s"
        blocks = self._limit(self._blocks, _BLOCKS)
        if now - self._last_block >= blocks:
            return f"minutes come, but no block came for {blocks:.0f} s"
        return ""

    def take(self) -> dict[str, bytes | None]:
        """Return the items that changed since the last time."""
        if not self._dirty:
            return {}
        self._dirty = False
        return {_ROW: orjson.dumps([self._blocks, self._minutes])}

    def _limit(self, intervals: list[float], multiple: float) -> float:
        if len(intervals) < _ENOUGH:
            return self._longest
        return min(max(multiple * median(intervals), self._shortest), self._longest)

    def _learn(self, intervals: list[float], mark: float | None, now: float) -> float:
        """Take the time since `mark`, if it is a pace; return the new mark."""
        if mark is None:
            return now
        interval = now - mark
        if self._shortest / _BURST < interval <= self._longest:
            intervals.append(round(interval, 3))
            del intervals[:-_LATEST]
            self._dirty = True
        return now
