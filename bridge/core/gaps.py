"""The gaps: what was passed over, from the first sight to the end.

A gap is a stretch of heights; what of it is missing are those that are not present, so a gap costs
the same however many of its heights have come. No two overlap, and whatever is missing is in one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import islice

import orjson

from bridge.core.ranges import Range, Ranges
from bridge.core.signals import Cause, Signal, Status, Trouble
from bridge.model import Way

__all__ = ["MOST_GAPS", "MOST_RANGES", "Gap", "Gaps"]

MOST_GAPS = 10_000
"""Gaps at once; what is passed over beyond that widens one that is there."""

MOST_RANGES = 10_000
"""Ranges of missing heights that a signal names; the count is always whole."""

_PREFIX = "heights/gap/"


@dataclass(slots=True, eq=False)
class Gap:
    """Heights `first` to `last` that were passed over, some of which may have come since."""

    id: str
    first: int
    last: int
    cause: Cause
    missing: int
    """How many of them are missing still."""
    opened_ns: int
    """Wall time of the first sight, and once it is told of the opening; ns since 1970."""
    status: Status = Status.SEEN
    """As last told; seen while nothing is told yet."""
    how: Way | None = None
    attempts: int = 0
    why: str = ""
    """Why backfill could not get them, if it said so."""
    told: tuple[object, ...] = ()
    """What the latest signal told, to know when there is something new."""
    told_at: float = 0
    """Monotonic seconds."""
    due: float | None = None
    """When the grace is over, or the next update may be told; monotonic seconds."""


class Gaps:
    """All gaps. `present` are the heights that are there; its owner notes them first."""

    def __init__(
        self,
        items: Iterable[tuple[str, bytes]],
        present: Ranges,
        now: float,
        *,
        grace: float,
        update_every: float,
    ) -> None:
        """Take what was stored; grace and the time to the next update begin anew."""
        self._present = present
        self._grace = grace
        self._every = update_every
        self.all: list[Gap] = []
        """Ascending. Not to be changed by others."""
        self.missing = 0
        """Heights missing in the gaps that are told."""
        self._firsts: list[int] = []
        self._timers: list[tuple[float, str, Gap]] = []
        self._signals: list[Signal] = []
        self._changed: dict[str, Gap | None] = {}
        for name, value in items:
            if name.startswith(_PREFIX):
                self.all.append(_unpack(name.removeprefix(_PREFIX), value))
        self.all.sort(key=lambda gap: gap.first)
        self._firsts = [gap.first for gap in self.all]
        for gap in self.all:
            gap.told_at = now
            if gap.status is Status.SEEN:
                self._at(gap, now + grace)
            else:
                self.missing += gap.missing
                self._touch(gap, now)

    def around(self, height: int) -> Gap | None:
        """Return the gap within whose first and last `height` lies."""
        place = bisect_right(self._firsts, height) - 1
        return self.all[place] if place >= 0 and height <= self.all[place].last else None

    def overlapping(self, first: int, last: int) -> Sequence[Gap]:
        """Return the gaps that have heights of `first` to `last`, ascending."""
        begin = bisect_right(self._firsts, first) - 1
        if begin < 0 or self.all[begin].last < first:
            begin += 1
        return self.all[begin : bisect_right(self._firsts, last)]

    def missing_of(self, gap: Gap) -> Iterable[Range]:
        """Yield what of `gap` is missing, ascending."""
        return self._present.holes(gap.first, gap.last)

    def missing_ranges(self) -> list[Range]:
        """Return what is missing in the gaps that are told, ascending."""
        return [
            missing
            for gap in self.all
            if gap.status is not Status.SEEN
            for missing in self.missing_of(gap)
        ]

    def begin(
        self, id_: str, hole: Range, cause: Cause, now: float, at_ns: int, *, at_once: bool = False
    ) -> None:
        """Note heights, none of them present or in a gap, as missing; in grace or told at once."""
        if len(self.all) >= MOST_GAPS:
            place = bisect_right(self._firsts, hole.first)
            # The one above where there is one: what lies between two gaps need not be present.
            self._widen(min(place, len(self.all) - 1), hole, now)
            return
        gap = Gap(id_, hole.first, hole.last, cause, hole.last - hole.first + 1, at_ns)
        place = bisect_right(self._firsts, gap.first)
        self.all.insert(place, gap)
        self._firsts.insert(place, gap.first)
        self._keep(gap)
        if at_once:
            self._open(gap, now, at_ns)
        else:
            self._at(gap, now + self._grace)

    def widen_last(self, last: int, now: float) -> None:
        """Let the highest gap reach up to `last`."""
        self._widen(len(self.all) - 1, Range(self.all[-1].last + 1, last), now)

    def filled(self, height: int, way: Way, now: float, at_ns: int) -> Gap | None:
        """Note that a missing height came, and is present; return the gap that it was in."""
        gap = self.around(height)
        if gap is None:
            return None
        gap.missing -= 1
        gap.how = way
        if gap.status is not Status.SEEN:
            self.missing -= 1
        if gap.missing:
            self._keep(gap)
            self._touch(gap, now)
            return gap
        if gap.status is not Status.SEEN:
            self._tell(gap, Status.RESOLVED, now, at_ns)
        self._remove(gap)
        return gap

    def blame(self, gap: Gap, cause: Cause, now: float) -> None:
        """Note a better known cause."""
        if gap.cause is not cause:
            gap.cause = cause
            self._keep(gap)
            self._touch(gap, now)

    def asked(self, first: int, last: int, now: float, at_ns: int) -> None:
        """Note that backfill asked for `first` to `last`."""
        for gap in self._told(first, last):
            gap.attempts += 1
            self._keep(gap)
            if gap.attempts == 1:
                self._tell(gap, Status.BACKFILLING, now, at_ns)
            else:
                self._touch(gap, now)

    def unobtainable(self, first: int, last: int, why: str, now: float, at_ns: int) -> None:
        """Note that backfill has no way left for `first` to `last`."""
        for gap in self._told(first, last):
            if gap.status is not Status.UNRESOLVED:
                gap.why = why
                self._keep(gap)
                self._tell(gap, Status.UNRESOLVED, now, at_ns)

    def touch_below(self, height: int, now: float) -> None:
        """Look again at the gap that ends below `height`, which is present now."""
        gap = self.around(height - 1)
        if gap is not None and gap.last < height:
            self._touch(gap, now)

    def abandon(self, present: Ranges, why: str, now: float, at_ns: int) -> None:
        """End all gaps, because `present`, of another chain, takes the place of what was."""
        for gap in list(self.all):
            if gap.status is not Status.SEEN:
                gap.why, gap.missing = why, 0
                self._tell(gap, Status.UNRESOLVED, now, at_ns)
            self._changed[gap.id] = None
            gap.due = None
        self.all.clear()
        self._firsts.clear()
        self._timers.clear()
        self.missing = 0
        self._present = present

    def tick(self, now: float, at_ns: int) -> None:
        """Tell what is due."""
        while self._timers and self._timers[0][0] <= now:
            due, _, gap = heappop(self._timers)
            if gap.due != due:
                continue
            gap.due = None
            if gap.status is Status.SEEN:
                self._open(gap, now, at_ns)
            elif self._news(gap) != gap.told:
                self._tell(gap, Status.UPDATED, now, at_ns)

    def take(self) -> tuple[list[Signal], dict[str, bytes | None]]:
        """Return the signals, and the items that changed, since the last time."""
        signals, self._signals = self._signals, []
        changed = {
            f"{_PREFIX}{id_}": None if gap is None else _pack(gap)
            for id_, gap in self._changed.items()
        }
        self._changed = {}
        return signals, changed

    def _told(self, first: int, last: int) -> list[Gap]:
        return [gap for gap in self.overlapping(first, last) if gap.status is not Status.SEEN]

    def _open(self, gap: Gap, now: float, at_ns: int) -> None:
        """Tell of what is missing after the grace."""
        left = list(self.missing_of(gap))
        place = self._place(gap)
        gap.first, gap.last = left[0].first, left[-1].last
        self._firsts[place] = gap.first
        gap.opened_ns, gap.how = at_ns, None
        self.missing += gap.missing
        self._keep(gap)
        self._tell(gap, Status.OPENED, now, at_ns)

    def _widen(self, place: int, hole: Range, now: float) -> None:
        gap = self.all[place]
        first, last = min(gap.first, hole.first), max(gap.last, hole.last)
        gap.first, gap.last = first, last
        self._firsts[place] = first
        missing = sum(b - a + 1 for a, b in self.missing_of(gap))
        if gap.status is not Status.SEEN:
            self.missing += missing - gap.missing
        gap.missing = missing
        self._keep(gap)
        self._touch(gap, now)

    def _touch(self, gap: Gap, now: float) -> None:
        """Have an update told, as soon as the last one is long enough ago, if there is news."""
        if gap.status is not Status.SEEN and gap.due is None and self._news(gap) != gap.told:
            self._at(gap, max(now, gap.told_at + self._every))

    def _at(self, gap: Gap, due: float) -> None:
        gap.due = due
        heappush(self._timers, (due, gap.id, gap))

    def _news(self, gap: Gap) -> tuple[object, ...]:
        # That backfill tries again what it has given up is no news.
        attempts = None if gap.status is Status.UNRESOLVED else gap.attempts
        above = gap.last + 1 in self._present
        return (gap.first, gap.last, gap.missing, gap.cause.value, above, attempts)

    def _tell(self, gap: Gap, status: Status, now: float, at_ns: int) -> None:
        gap.status = status
        gap.told, gap.told_at = self._news(gap), now
        self._keep(gap)
        self._signals.append(self._signal(gap, at_ns))

    @property
    def open_count(self) -> int:
        """How many gaps are told."""
        return sum(gap.status is not Status.SEEN for gap in self.all)

    def open(self) -> list[Signal]:
        """Return what would be told now of each gap whose grace is over, ascending."""
        told = (gap for gap in self.all if gap.status is not Status.SEEN)
        return [self._signal(gap, gap.opened_ns) for gap in told]

    def _signal(self, gap: Gap, at_ns: int) -> Signal:
        missing = islice(self.missing_of(gap), MOST_RANGES if gap.missing else 0)
        return Signal(
            gap.id,
            Trouble.GAP,
            gap.status,
            gap.first,
            gap.last,
            gap.opened_ns,
            at_ns,
            gap.cause,
            tuple(missing),
            gap.missing,
            gap.how,
            gap.attempts,
            gap.first - 1 if gap.first - 1 in self._present else None,
            gap.last + 1 if gap.last + 1 in self._present else None,
            gap.why if gap.status is Status.UNRESOLVED else "",
        )

    def _remove(self, gap: Gap) -> None:
        place = self._place(gap)
        del self.all[place]
        del self._firsts[place]
        self._changed[gap.id] = None
        gap.due = None

    def _place(self, gap: Gap) -> int:
        return bisect_right(self._firsts, gap.first) - 1

    def _keep(self, gap: Gap) -> None:
        self._changed[gap.id] = gap


def _pack(gap: Gap) -> bytes:
    return orjson.dumps(
        [
            gap.first,
            gap.last,
            gap.cause,
            gap.missing,
            gap.opened_ns,
            gap.status,
            gap.how,
            gap.attempts,
            gap.why,
            gap.told,
        ]
    )


def _unpack(id_: str, stored: bytes) -> Gap:
    first, last, cause, missing, opened_ns, status, how, attempts, why, told = orjson.loads(stored)
    return Gap(
        id_,
        first,
        last,
        Cause(cause),
        missing,
        opened_ns,
        Status(status),
        Way(how) if how else None,
        attempts,
        why,
        tuple(told),
    )
