"""A set of heights as ranges: as large as its holes are many, whatever heights it holds."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

__all__ = ["Range", "Ranges"]


class Range(NamedTuple):
    """Heights from `first` to `last`, both inclusive."""

    first: int
    last: int


class Ranges:
    """Heights that can be added one by one, in any order."""

    def __init__(self, ascending: Iterable[int] = ()) -> None:
        # Two lists, because they are searched more often than they change.
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for height in ascending:
            if self._lasts and self._lasts[-1] == height - 1:
                self._lasts[-1] = height
            else:
                self._firsts.append(height)
                self._lasts.append(height)

    def __len__(self) -> int:
        """Return how many ranges there are."""
        return len(self._firsts)

    def __iter__(self) -> Iterator[Range]:
        """Yield the ranges, ascending; no two of them touch."""
        return map(Range, self._firsts, self._lasts)

    def __contains__(self, height: int) -> bool:
        place = bisect_right(self._firsts, height) - 1
        return place >= 0 and height <= self._lasts[place]

    @property
    def lowest(self) -> int | None:
        """The lowest height; None when empty."""
        return self._firsts[0] if self._firsts else None

    @property
    def highest(self) -> int | None:
        """The highest height; None when empty."""
        return self._lasts[-1] if self._lasts else None

    def add(self, height: int) -> None:
        """Add `height`, which is not in it."""
        place = bisect_right(self._firsts, height)
        joins_below = place > 0 and self._lasts[place - 1] == height - 1
        joins_above = place < len(self._firsts) and self._firsts[place] == height + 1
        if joins_below and joins_above:
            del self._firsts[place]
            del self._lasts[place - 1]
        elif joins_below:
            self._lasts[place - 1] = height
        elif joins_above:
            self._firsts[place] = height
        else:
            self._firsts.insert(place, height)
            self._lasts.insert(place, height)

    def holes(self, first: int, last: int) -> Iterator[Range]:
        """Yield what of `first` to `last` is not in it, ascending."""
        place = max(bisect_right(self._firsts, first) - 1, 0)
        while first <= last:
            if place == len(self._firsts) or self._firsts[place] > last:
                yield Range(first, last)
                return
            if self._firsts[place] > first:
                yield Range(first, self._firsts[place] - 1)
            first = max(first, self._lasts[place] + 1)
            place += 1
