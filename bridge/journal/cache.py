"""Lets the page cache go of what every reader has passed.

The journal's file is written once and, as a rule, never read again. Left alone it fills the memory
that others on the machine would have, and each new page of it costs several times what one costs that
is used again where a host takes free memory back (docs/decisions/0014).
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress

import apsw

from bridge.errors import StorageUnusable
from bridge.journal.file import PAGE_BYTES, WalLength, one, refuse

__all__ = ["PageCache"]

_STEP_PAGES = 256
"""So often it is noted how long the file was: 4 MiB. A backlog of 10 GB has 2,500 such notes."""


class PageCache:
    """What the kernel holds of the file that `writer` writes, with a WAL of that length.

    Only what is written from now on is let go of; on systems that cannot be told, nothing is.
    """

    def __init__(self, writer: apsw.Connection, wal: WalLength) -> None:
        self._writer = writer
        self._wal = wal
        self._let_go_to = self._noted = self._passed = self._pages()
        self._notes: deque[tuple[int, int]] = deque()
        """Heads, ascending, and how many pages the file had then."""
        # Never closed before the database is: closing any descriptor of it gives up its locks.
        try:
            self._file = os.open(writer.filename, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise StorageUnusable(f"cannot open {writer.filename}: {error.strerror}") from error

    def _pages(self) -> int:
        pages: int = one(self._writer, "PRAGMA page_count")
        return pages

    def let_go(self, delivered: int, head: int) -> None:
        """Let go of what holds the records up to `delivered`, as far as it is folded into the file.

        Raises:
            StorageDamaged: the file cannot be read.
        """
        try:
            pages = self._pages()
        except apsw.Error as error:
            refuse(error)
        if pages >= self._noted + _STEP_PAGES:
            self._notes.append((head, pages))
            self._noted = pages
        while self._notes and self._notes[0][0] <= delivered:
            self._passed = self._notes.popleft()[1]
        end = min(self._passed, pages - self._wal.pages)
        if end > self._let_go_to and hasattr(os, "posix_fadvise"):
            begin, size = self._let_go_to * PAGE_BYTES, (end - self._let_go_to) * PAGE_BYTES
            # It is advice: a file system that does not take it is no reason to end.
            with suppress(OSError):
                os.posix_fadvise(self._file, begin, size, os.POSIX_FADV_DONTNEED)
            self._let_go_to = end

    def close(self) -> None:
        """Close the file, behind the database."""
        os.close(self._file)
