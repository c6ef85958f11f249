"""Knows which heights of directory blocks came, and so which are missing.

A pure state machine: `observe` takes the state and what came, and returns the state after it and
what that means. Gaps are ranges, because one forged height must not open four billion of them, and
two nodes of one network feed one truth.

The full tracker (links, receipts, stalls, causes) will replace this module behind the same shape.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import orjson

__all__ = [
    "MAX_JUMP",
    "Gap",
    "GapOpened",
    "GapResolved",
    "Heights",
    "JumpRefused",
    "Signal",
    "observe",
]

MAX_JUMP = 1_000_000
"""A height further ahead than this is more likely forged than true: it opens no gap."""

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Gap:
    """Heights that were passed over: `first` to `last` as seen at the opening."""

    first: int
    last: int
    opened_ns: int
    missing: tuple[Range, ...]
    """What of it is still missing: inclusive ranges, ascending."""


@dataclass(frozen=True, slots=True)
class Heights:
    """State of the tracker."""

    highest: int | None = None
    gaps: tuple[Gap, ...] = ()
    jumped: int | None = None
    """The height last refused as too far ahead, until a true one comes: it is told once."""

    def to_bytes(self) -> bytes:
        """Return the state as the journal stores it."""
        return orjson.dumps(self)

    @classmethod
    def from_bytes(cls, stored: bytes | None) -> Heights:
        """Return the state that `to_bytes` gave; None is the state at the beginning."""
        if stored is None:
            return cls()
        tree = orjson.loads(stored)
        gaps = tuple(
            Gap(g["first"], g["last"], g["opened_ns"], tuple((a, b) for a, b in g["missing"]))
            for g in tree["gaps"]
        )
        return cls(tree["highest"], gaps, tree["jumped"])

    @property
    def missing(self) -> int:
        """How many heights are missing in all open gaps."""
        return sum(last - first + 1 for gap in self.gaps for first, last in gap.missing)


@dataclass(frozen=True, slots=True)
class GapOpened:
    """Heights were passed over for the first time."""

    gap: Gap


@dataclass(frozen=True, slots=True)
class GapResolved:
    """The last missing height of a gap came."""

    gap: Gap


@dataclass(frozen=True, slots=True)
class JumpRefused:
    """A height so far ahead came that it is taken for forged, and changes nothing."""

    height: int
    highest: int


Signal = GapOpened | GapResolved | JumpRefused


def observe(state: Heights, height: int, at_ns: int) -> tuple[Heights, Signal | None]:
    """Return the state after the block of `height` came at `at_ns`, and what that means."""
    if state.highest is None:
        return Heights(height), None
    if height > state.highest:
        if height - state.highest > MAX_JUMP:
            told = None if state.jumped is not None else JumpRefused(height, state.highest)
            return replace(state, jumped=height), told
        if height == state.highest + 1:
            return replace(state, highest=height, jumped=None), None
        first, last = state.highest + 1, height - 1
        gap = Gap(first, last, at_ns, ((first, last),))
        return Heights(height, (*state.gaps, gap)), GapOpened(gap)
    for place, gap in enumerate(state.gaps):
        if gap.first <= height <= gap.last:
            left = _without(gap.missing, height)
            if left == gap.missing:
                break
            before, after = state.gaps[:place], state.gaps[place + 1 :]
            if not left:
                return replace(state, gaps=before + after), GapResolved(gap)
            return replace(state, gaps=(*before, replace(gap, missing=left), *after)), None
    return state, None


def _without(ranges: tuple[Range, ...], height: int) -> tuple[Range, ...]:
    left: list[Range] = []
    for first, last in ranges:
        if first <= height <= last:
            if first < height:
                left.append((first, height - 1))
            if height < last:
                left.append((height + 1, last))
        else:
            left.append((first, last))
    return tuple(left)
