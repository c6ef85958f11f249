"""Whose turn it is: heights in pages, of which each waits longer the more often it was in vain.

What is wanted is told anew at each look, as ranges. What was tried in vain keeps its count and its
wait though the ranges change: of a page that came in part, the rest alone waits. So a height that
cannot be had ends up alone, and delays no other.
"""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

__all__ = ["Turn", "Turns"]

_MOST = 10_000
"""Pages that may be waiting; with so many in vain, others are begun only as these come."""

_MOST_DOUBLINGS = 32


class Turn(NamedTuple):
    """Heights to be tried together."""

    first: int
    last: int
    vain: int = 0
    """How often they were tried in vain."""
    due: float = 0
    """When they are tried again, in seconds of the caller's clock."""


class Turns:
    """Cuts ranges into pages of `page` heights, and remembers those that were tried in vain.

    `waits` are the shortest and the longest time, in seconds, until a page is tried again; it is
    the longest at once when a page was tried `patience` times.
    """

    def __init__(self, page: int, waits: tuple[float, float], patience: int) -> None:
        self._page = page
        self._first_wait, self._longest_wait = waits
        self._patience = patience
        self._waiting: list[Turn] = []

    @property
    def waiting(self) -> int:
        """How many pages were tried in vain and are wanted still, as of the last look."""
        return len(self._waiting)

    def look(self, wanted: Sequence[tuple[int, int]]) -> Iterator[Turn]:
        """Yield what is wanted, lowest first, due or not. Take what is due, and look anew.

        Args:
            wanted: ranges of heights, ascending; what is not in them is forgotten.
        """
        self._waiting = list(self._of(wanted))
        return self._all(wanted)

    def failed(self, turn: Turn, now: float) -> Turn:
        """Note that `turn` was in vain, and return what it has become."""
        vain = turn.vain + 1
        wait = self._longest_wait
        if vain < self._patience:
            wait = min(wait, self._first_wait * 2 ** min(turn.vain, _MOST_DOUBLINGS))
        wait *= random.uniform(0.5, 1)  # noqa: S311  (jitter)
        after = Turn(turn.first, turn.last, vain, now + wait)
        begin = bisect_left(self._waiting, turn.first, key=lambda each: each.last)
        end = bisect_right(self._waiting, turn.last, key=lambda each: each.first)
        self._waiting[begin:end] = [after]
        return after

    def _of(self, wanted: Sequence[tuple[int, int]]) -> Iterator[Turn]:
        """Yield what of the waiting turns is wanted still."""
        turns = iter(self._waiting)
        turn = next(turns, None)
        for first, last in wanted:
            while turn is not None and turn.first <= last:
                if turn.last >= first:
                    yield turn._replace(first=max(first, turn.first), last=min(last, turn.last))
                if turn.last > last:
                    break
                turn = next(turns, None)

    def _all(self, wanted: Sequence[tuple[int, int]]) -> Iterator[Turn]:
        turns = iter(self._waiting)
        turn = next(turns, None)
        for first, last in wanted:
            at = first
            while turn is not None and turn.first <= last:
                yield from self._cut(at, turn.first - 1)
                yield turn
                at = turn.last + 1
                turn = next(turns, None)
            yield from self._cut(at, last)

    def _cut(self, first: int, last: int) -> Iterator[Turn]:
        if len(self._waiting) < _MOST:
            for at in range(first, last + 1, self._page):
                yield Turn(at, min(last, at + self._page - 1))
