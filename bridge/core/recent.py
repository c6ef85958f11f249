"""Remembers the ids of late, at next to no cost per id."""

from __future__ import annotations

from collections.abc import Collection, Iterable

__all__ = ["Recent"]


class Recent:
    """The last `most` ids that were added, and up to as many more."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._young: set[str] = set()
        self._old: set[str] = set()

    def __contains__(self, id_: str) -> bool:
        return id_ in self._young or id_ in self._old

    def has_any(self, ids: Collection[str]) -> bool:
        """Say whether one of `ids` is among them."""
        return not (self._young.isdisjoint(ids) and self._old.isdisjoint(ids))

    def add(self, ids: Iterable[str]) -> None:
        """Remember `ids`."""
        self._young.update(ids)
        if len(self._young) >= self._most:
            self._old, self._young = self._young, set()

    def clear(self) -> None:
        """Forget all."""
        self._young, self._old = set(), set()
