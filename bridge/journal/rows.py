"""Rows of the journal's tables: a commit is cut into them, and they are read back.

Damage to the file can make any column anything, whatever the table's types: nothing here takes a
column on trust.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw
import google_crc32c

from bridge.core.groups import Row, unpack
from bridge.errors import StorageDamaged
from bridge.journal.file import one, refuse
from bridge.model import Run

__all__ = [
    "ITEM",
    "ITEMS",
    "MOVE",
    "READ",
    "StoredFrames",
    "checkpoints",
    "inherited",
    "oldest",
    "parts",
    "row_of",
]

_LAST = "SELECT first, count, checksum, head, frames FROM groups ORDER BY first DESC LIMIT 1"

ITEMS = "SELECT name, value FROM items WHERE reader = ? ORDER BY name"
ITEM = "SELECT value FROM items WHERE reader = ? AND name = ?"
"""The state of a reader, and one part of it."""

READ = """
SELECT first, count, checksum, head, iif(typeof(frames) = 'blob', length(frames), -1),
    (SELECT min(other.first) FROM groups AS other WHERE other.first > groups.first)
FROM groups
WHERE first >= coalesce((SELECT max(first) FROM groups WHERE first <= ?), 0)
ORDER BY first"""
"""The groups from the one on that holds a record, each with the size of its frames, -1 where they are
damaged, and the number at which the next one begins."""

MOVE = (
    "INSERT INTO readers (name, seq, state) VALUES (?, ?, ?)"
    " ON CONFLICT (name) DO UPDATE SET seq = excluded.seq, state = excluded.state"
)
"""Moves the checkpoint of a reader."""

_ROW_BYTES = 256 * 1024
"""A commit larger than this becomes several rows, so that a reader's step stays small."""


def parts(runs: Sequence[Run]) -> list[list[Run]]:
    """Return `runs` in parts, a row for each."""
    found: list[list[Run]] = []
    size = _ROW_BYTES
    for run in runs:
        if size >= _ROW_BYTES:
            found.append([])
            size = 0
        found[-1].append(run)
        size += len(run.frames)
    return found


def oldest(connection: apsw.Connection) -> int:
    """Return the number of the first record kept; 1 where there is none.

    Raises:
        StorageDamaged: the file is damaged there.
    """
    try:
        first: int = one(connection, "SELECT coalesce(min(first), 1) FROM groups")
    except apsw.Error as error:
        refuse(error)
    return first


def checkpoints(connection: apsw.Connection) -> list[tuple[str, int, bytes | None]]:
    """Return name, number and state of every reader.

    Raises:
        StorageDamaged: one has no number.
    """
    found = list(connection.execute("SELECT name, seq, state FROM readers"))
    for name, seq, _ in found:
        if not isinstance(seq, int):
            raise StorageDamaged(
                f"the journal cannot be trusted: the checkpoint of {name} is {seq}"
            )
    return found


def inherited(connection: apsw.Connection) -> tuple[int, int]:
    """Return the last row's first number, and the number of the last record.

    A damaged row may tell any count: then the readers know better.

    Raises:
        StorageDamaged: as `checkpoints`.
    """
    head = max((seq for _, seq, _ in checkpoints(connection)), default=0)
    for columns in connection.execute(_LAST):
        row = row_of(*columns)
        last = row.first + row.records - 1
        whole = not unpack(row, last, google_crc32c.extend).damaged
        return row.first, max(head, last if whole else row.first)
    return 0, head


class StoredFrames:
    """The frames of one row after the other: read from the file in slices, each copied once."""

    def __init__(self, reader: apsw.Connection) -> None:
        self._reader = reader
        self._blob: apsw.Blob | None = None
        self._size = 0

    def of(self, first: int, size: int) -> StoredFrames | None:
        """Return those of the row that begins with the record `first`; the row before is let go of.

        None where they are damaged, which `size` tells.
        """
        if size < 0:
            return None
        self._size = size
        if self._blob is None:
            self._blob = self._reader.blob_open("main", "groups", "frames", first, writeable=False)
        else:
            self._blob.reopen(first)
        return self

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice, /) -> bytes:
        assert self._blob is not None
        start, stop, _ = part.indices(self._size)
        self._blob.seek(start)
        return self._blob.read(stop - start)

    def close(self) -> None:
        """Let go of the last row, and so of the transaction."""
        if self._blob is not None:
            self._blob.close()


def row_of(first: int, count: Any, checksum: Any, head: Any, frames: Any) -> Row[Any]:
    """Return a row as it was read. Damage can make any column another type: it tells no records."""
    columns = ((count, int), (checksum, int), (head, bytes), (frames, (bytes, StoredFrames)))
    if not all(isinstance(value, type_) for value, type_ in columns):
        return Row(first, 0, b"", b"", 0)
    return Row(first, count, head, frames, checksum)
