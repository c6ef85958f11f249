"""What backfill asks of the tracker, and tells it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bridge.core.verify import Links
from bridge.model import Note

__all__ = ["Wanted", "missing_of"]


class Wanted(Protocol):
    """What is missing, as the tracker knows it, and what it is told."""

    def missing(self) -> Sequence[tuple[int, int]]:
        """Return the ranges of missing heights of open gaps, ascending."""
        ...

    def links_below(self, height: int) -> Links | None:
        """Return the links of `height` - 1, where they are known."""
        ...

    def key_above(self, height: int) -> bytes | None:
        """Return what the block of `height` + 1 names as the key before it, where it is there."""
        ...

    def agrees(self, height: int, key: bytes) -> bool:
        """Whether the block of `height` is there and has this key Merkle root."""
        ...

    def blind(self, most: int) -> list[int]:
        """Return the lowest heights that are there and whose entry blocks are not known."""
        ...

    def wanting(self, most: int) -> list[int]:
        """Return the lowest heights of which entries are missing, known by hash."""
        ...

    def missing_entries(self, height: int) -> tuple[bytes, ...]:
        """Return the hashes of the entries of `height` that are missing."""
        ...

    def tell(self, note: Note) -> None:
        """Take note of what backfill did or heard."""
        ...

    async def caught_up(self) -> None:
        """Return when all that the journal holds now was taken into account."""
        ...


def missing_of(wanted: Wanted, first: int, last: int) -> list[tuple[int, int]]:
    """Return what of `first` to `last` is missing."""
    return [
        (max(begin, first), min(end, last))
        for begin, end in wanted.missing()
        if begin <= last and first <= end
    ]
