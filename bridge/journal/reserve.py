"""A little room that is kept, so that what matters can be written when the disk is full."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from bridge.errors import StorageFull
from bridge.journal.room import is_short, room_of

__all__ = ["SLICE_BYTES", "WHOLE_BYTES", "Reserve"]

WHOLE_BYTES = 4 * 1024 * 1024
SLICE_BYTES = 256 * 1024
"""What one write is given: a dozen pages, which is more than an alert or a trim changes."""

T = TypeVar("T")


class Reserve:
    """A file that gives way slice by slice, and grows again when there is room.

    Where it cannot be had, on a disk that is full already, the journal works without.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bytes = min(path.stat().st_size, WHOLE_BYTES) if path.exists() else 0
        self.fill()
        if self._room() < SLICE_BYTES:
            # A start writes small files, such as the index of the WAL.
            self._give(0)

    def fill(self) -> None:
        """Make it whole, if that leaves as much room again to others."""
        if self._bytes == WHOLE_BYTES or is_short(self._path.parent):
            return
        with suppress(OSError):
            try:
                with self._path.open("ab") as file:
                    file.write(bytes(WHOLE_BYTES - self._bytes))
            except OSError:
                os.truncate(self._path, self._bytes)
                raise
            self._bytes = WHOLE_BYTES

    def spend(self, write: Callable[[], T], *, spare: int = 0) -> T:
        """Return what `write` returns, on a full disk with the room of slices, but for `spare`.

        Raises:
            StorageFull: by `write`, and there is no slice left.
        """
        while True:
            try:
                return write()
            except StorageFull:
                if not self._give(spare):
                    raise

    def _give(self, spare: int) -> bool:
        left = self._bytes - SLICE_BYTES
        if left < spare * SLICE_BYTES:
            return False
        os.truncate(self._path, left)
        self._bytes = left
        return True

    def _room(self) -> int:
        return room_of(self._path.parent)
