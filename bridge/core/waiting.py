"""What may still come of some heights, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Waiting"]


class _Height(NamedTuple):
    until: float
    ids: set[int]


_Found = list[tuple[int, set[int]]]
"""Heights, and identities of each."""


class Waiting:
    """Identities by height; where there are too many, the heights that wait longest give way."""

    def __init__(self, most_heights: int = 64, most_ids: int = 100_000) -> None:
        self.most_heights = most_heights
        self.most_ids = most_ids
        self._heights: dict[int, _Height] = {}
        """In the order of `until`."""
        self._ids = 0

    def __contains__(self, height: int) -> bool:
        """Say whether something of `height` is waited for."""
        return height in self._heights

    def add(self, height: int, ids: set[int], until: float) -> _Found:
        """Wait for `ids` until no earlier a time than for those before; return what gives way."""
        self._heights[height] = _Height(until, ids)
        self._ids += len(ids)
        gave_way = []
        while len(self._heights) > self.most_heights or self._ids > self.most_ids:
            gave_way.append(self._first())
        return gave_way

    def came(self, ids: Sequence[int]) -> _Found:
        """Take out what is among `ids`, and return it."""
        found: _Found = []
        came = set(ids) if self._heights else set()
        for height, waiting in list(self._heights.items()):
            if both := waiting.ids & came:
                waiting.ids.difference_update(both)
                self._ids -= len(both)
                if not waiting.ids:
                    del self._heights[height]
                found.append((height, both))
        return found

    def over(self, now: float) -> _Found:
        """Take out the heights whose time is over, and return them."""
        found = []
        while self._heights and next(iter(self._heights.values())).until <= now:
            found.append(self._first())
        return found

    def drop(self, height: int) -> None:
        """Wait for nothing of `height`."""
        if height in self._heights:
            self._ids -= len(self._heights.pop(height).ids)

    def _first(self) -> tuple[int, set[int]]:
        height, waiting = next(iter(self._heights.items()))
        self.drop(height)
        return height, waiting.ids
