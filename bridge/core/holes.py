"""Turns what is passed over, told by the node, or sought, into gaps, and says why.

A height is missing if it lies above the first block and below something that is known to exist, or
if somebody seeks it, and if its block is not there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from bridge.core.chain import Chain
from bridge.core.gaps import Gaps
from bridge.core.ranges import Range
from bridge.core.signals import Cause, Signal
from bridge.model import Way

__all__ = ["MAX_JUMP", "Bounds", "Holes"]

MAX_JUMP = 1_000_000
"""A height further ahead than this is more likely forged than true: it opens no gap."""

_NEAR = 2
"""A minute of a height so near to a block's says that the chain is there."""
_MOST_TOLD = 64
"""Heights of minutes that are remembered."""
_ROW = "heights/holes"


@dataclass(frozen=True, slots=True)
class Bounds:
    """Times, in seconds."""

    grace: float = 30
    """How long a gap may fill by itself before it is told."""
    update_every: float = 5
    """How often at most one gap is told again."""
    doubt: float = 120
    """How long a block may wait for something to speak for it."""
    shortest_stall: float = 60
    longest_stall: float = 1200


class Holes:
    """The gaps in `chain`, and what the nodes say of heights that are not there."""

    def __init__(
        self, items: Iterable[tuple[str, bytes]], chain: Chain, now: float, bounds: Bounds
    ) -> None:
        """Take what was stored; pass over the items of others."""
        stored = list(items)
        self._chain = chain
        self.gaps = Gaps(
            stored, chain.present, now, grace=bounds.grace, update_every=bounds.update_every
        )
        self._told: dict[int, None] = {}
        self._tip: int | None = None
        self._adoptions = 0
        # Where a block came before, the next one comes after a restart.
        self._restarted = chain.present.highest is not None
        self._storage = self._dirty = False
        for name, value in stored:
            if name == _ROW:
                told, self._tip, self._adoptions = orjson.loads(value)
                self._told = dict.fromkeys(told)

    @property
    def floor(self) -> int | None:
        """The lowest height that is there or missing."""
        first = self.gaps.all[0].first if self.gaps.all else None
        lowest = self._chain.present.lowest
        if lowest is None or first is None:
            return first if lowest is None else lowest
        return min(lowest, first)

    @property
    def top(self) -> int | None:
        """The height above which nothing is there or missing."""
        last = self.gaps.all[-1].last if self.gaps.all else None
        highest = self._chain.present.highest
        if highest is None or last is None:
            return last if highest is None else highest
        return max(highest, last)

    def too_far(self, height: int) -> bool:
        """Whether `height` is too far ahead to be believed."""
        top = self.top
        return top is not None and height > top + MAX_JUMP

    def expected(self, height: int, *, waiting: bool) -> bool:
        """Whether a node, or a gap, says that there is a block of `height`.

        One that is `waiting` came too early, if only now the node comes near its height: then it
        takes the minute of a height above it, which is told when the true block is saved.
        """
        nearest = 1 if waiting else -_NEAR
        return (
            self.gaps.around(height) is not None
            or (self._tip is not None and height <= self._tip)
            or any(nearest <= told - height <= _NEAR for told in self._told)
        )

    def told(self, height: int) -> bool:
        """Note that a node works on `height`; return whether that is news."""
        if height in self._told:
            return False
        if len(self._told) >= _MOST_TOLD:
            del self._told[next(iter(self._told))]
        self._told[height] = None
        self._dirty = True
        return True

    def storage(self) -> None:
        """Note that the journal refused or lost events."""
        self._storage = True

    def tip(self, height: int, now: float, at_ns: int) -> None:
        """Note that a node has the block of `height`, and all those below."""
        if height != self._tip:
            self._tip, self._dirty = height, True
        top = self.top
        if top is not None and height > top:
            self._pass_over(top + 1, height, now, at_ns)

    def passed(self, height: int, now: float, at_ns: int) -> None:
        """Note that the block of `height` comes: what lies between it and the top is missing."""
        top = self.top
        if top is not None and height > top + 1:
            self._pass_over(top + 1, height - 1, now, at_ns)

    def filled(self, height: int, way: Way, now: float, at_ns: int) -> None:
        """Note that the block of `height` is present now."""
        self.gaps.filled(height, way, now, at_ns)
        self.gaps.touch_below(height, now)
        if height == self._chain.present.highest:
            # An older one that comes late says nothing of what came since the restart.
            self._restarted = self._storage = False

    def unlinked(self, height: int, now: float, at_ns: int) -> None:
        """Note that a block of `height` came which contradicts one that is there."""
        gap, top = self.gaps.around(height), self.top
        if gap is not None:
            self.gaps.blame(gap, Cause.UNLINKED, now)
        elif top is not None and height == top + 1:
            hole = Range(height, height)
            self.gaps.begin(self._id(hole), hole, Cause.UNLINKED, now, at_ns)

    def sought(self, first: int, last: int, now: float, at_ns: int) -> None:
        """Note that somebody wants `first` to `last`: what is not there is missing, at once."""
        top = self.top
        last = min(last, (first if top is None else top) + MAX_JUMP)
        for gap in [*self.gaps.overlapping(first, last), None]:
            end = last if gap is None else gap.first - 1
            for hole in list(self._chain.present.holes(first, end)):
                self.gaps.begin(self._id(hole), hole, Cause.UNKNOWN, now, at_ns, at_once=True)
            first = last if gap is None else gap.last + 1

    def begin_anew(self, why: str, now: float, at_ns: int) -> None:
        """End all gaps: another chain has taken the place of the one so far."""
        self.gaps.abandon(self._chain.present, why, now, at_ns)
        self._tip = None
        self._adoptions += 1
        self._restarted = self._storage = False
        self._dirty = True

    def take(self) -> tuple[list[Signal], dict[str, bytes | None]]:
        """Return the signals, and the items that changed, since the last time."""
        signals, items = self.gaps.take()
        if self._dirty:
            self._dirty = False
            items[_ROW] = orjson.dumps([list(self._told), self._tip, self._adoptions])
        return signals, items

    def _pass_over(self, first: int, last: int, now: float, at_ns: int) -> None:
        """Note that `first` to `last`, all above what there is, are missing."""
        gaps, highest = self.gaps, self._chain.present.highest
        if gaps.all and (highest is None or gaps.all[-1].last > highest):
            # Nothing came since that gap began: it is the same one, and grows.
            gaps.widen_last(last, now)
        else:
            hole = Range(first, last)
            gaps.begin(self._id(hole), hole, self._cause(hole), now, at_ns)

    def _cause(self, hole: Range) -> Cause:
        if self._restarted:
            return Cause.RESTART
        if self._storage:
            return Cause.STORAGE
        # The first of them is told in any case: a node works on it once the block below is saved.
        first = min(hole.first + 1, hole.last)
        worked_on = any(first <= height <= hole.last for height in self._told)
        return Cause.NOT_SYNCED if worked_on else Cause.SILENT

    def _id(self, hole: Range) -> str:
        again = f"-{self._adoptions}" if self._adoptions else ""
        return f"{hole.first}-{hole.last}{again}"
