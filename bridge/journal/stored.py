"""Rows as they are stored: in the database, with frames that are in there or in a segment.

Damage to a file can make any column anything, whatever the table's types: nothing here takes a column
on trust. What is wrong with a row becomes a group that is damaged, in `core.groups`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import apsw

from bridge.core.groups import Frames, Row
from bridge.errors import StorageDamaged
from bridge.journal.segments import segment_path

__all__ = ["StoredRow", "row_with", "stored"]

_ROWS = """
SELECT groups.first, count, checksum, head, iif(typeof(frames) = 'blob', length(frames), -1),
    segment, at, size,
    (SELECT min(other.first) FROM groups AS other WHERE other.first > groups.first)
FROM groups LEFT JOIN places ON places.first = groups.first
WHERE groups.first >= ? ORDER BY groups.first"""


class StoredRow(NamedTuple):
    """One row, of which the frames are read when they are asked for, until the next row."""

    row: Row[Frames]
    follower: int | None
    """The number at which the next row begins."""


def row_with(connection: apsw.Connection, record: int) -> int:
    """Return the number at which the row begins that holds `record`, or the last one in front of it."""
    sql = "SELECT coalesce(max(first), 0) FROM groups WHERE first <= ?"
    first: int = next(connection.execute(sql, (record,)))[0]
    return first


@contextmanager
def stored(connection: apsw.Connection, first: int) -> Iterator[Iterator[StoredRow]]:
    """Give the rows from the one on that begins with the record `first`, in one transaction."""
    with (
        closing(_InRows(connection)) as in_rows,
        closing(_InSegments(Path(connection.filename).parent)) as in_segments,
        closing(connection.execute(_ROWS, (first,))) as found,
    ):
        yield (_stored_row(in_rows, in_segments, *columns) for columns in found)


def _stored_row(
    in_rows: _InRows,
    in_segments: _InSegments,
    first: int,
    *columns: Any,
) -> StoredRow:
    count, checksum, head, length, segment, at, size, follower = columns
    place = (segment, at, size)
    frames: Frames | None
    if place == (None, None, None):
        frames = in_rows.of(first, length) if length >= 0 else None
    else:
        frames = in_segments.of(*place) if all(isinstance(each, int) for each in place) else None
    told = ((count, int), (checksum, int), (head, bytes))
    if not all(isinstance(value, type_) for value, type_ in told):
        return StoredRow(Row(first, 0, b"", b"", 0), follower)
    # Without its frames it still tells how many records there were.
    return StoredRow(Row(first, count, head, frames or b"", checksum), follower)


class _InRows:
    """Frames of one row after the other, in the database: read in slices, each copied once."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._blob: apsw.Blob | None = None
        self._size = 0

    def of(self, first: int, size: int) -> Frames:
        """Return those of the row that begins with the record `first`; the row before is let go of."""
        self._size = size
        if self._blob is None:
            opened = self._connection.blob_open("main", "groups", "frames", first, writeable=False)
            self._blob = opened
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


class _InSegments:
    """Frames of one row after the other, in the segments of `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number: int | None = None
        self._file = self._at = self._size = 0

    def of(self, number: int, at: int, size: int) -> Frames | None:
        """Return those at that place; None where the segment is not there, or ends before."""
        try:
            if number != self._number:
                self.close()
                path = segment_path(self._folder, number)
                self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                self._number = number
            if at < 0 or size < 0 or at + size > os.fstat(self._file).st_size:
                return None
        except FileNotFoundError:
            return None
        except OSError as error:
            _refuse(error)
        self._at, self._size = at, size
        return self

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice, /) -> bytes:
        start, stop, _ = part.indices(self._size)
        try:
            return os.pread(self._file, stop - start, self._at + start)
        except OSError as error:
            _refuse(error)

    def close(self) -> None:
        """Close the segment that was read last."""
        if self._number is not None:
            os.close(self._file)
        self._number = None


def _refuse(error: OSError) -> NoReturn:
    raise StorageDamaged(f"the journal cannot be read: {error}") from error
