"""Reads the journal's file beside the bridge that writes it, or when none runs.

The connection is read-only and every look is one short transaction, so the writer never waits. What
is trimmed meanwhile is gone from the next look on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import apsw
import google_crc32c

from bridge.core.groups import Row, unpack
from bridge.errors import StorageDamaged, StorageUnusable
from bridge.journal.file import one, read_only
from bridge.journal.rows import oldest
from bridge.journal.stored import stored
from bridge.model import Group

__all__ = ["Horizon", "JournalFile", "open_file"]

_STEP_BYTES = 4 * 1024 * 1024


class Horizon(NamedTuple):
    """How far back the journal goes, and how far it has come."""

    first: int
    """Number of the oldest record that is kept; 0 where there is none."""
    first_ns: int
    """When that came, nanoseconds since 1970; 0 where it cannot be told."""
    last: int
    """Number of the newest record."""


class JournalFile:
    """The journal in one folder. Made by `open_file`."""

    def __init__(self, path: Path, connection: apsw.Connection) -> None:
        self.path = path
        self._connection = connection
        if not list(connection.execute("PRAGMA table_info(places)")):
            raise StorageUnusable(f"{path} is of an older version; `factom-bridge run` renews it")
        self.epoch: str = one(connection, "SELECT value FROM meta WHERE name = 'epoch'")

    def horizon(self) -> Horizon:
        """Return what it holds now."""
        last = one(self._connection, "SELECT coalesce(max(first + count - 1), 0) FROM groups")
        for row in self._step(0, 1):
            received = [run.received_ns for run in _group(row).runs]
            return Horizon(row.first, min(received, default=0), last)
        return Horizon(0, 0, last)

    def positions(self) -> dict[str, int]:
        """Return up to which number each reader is done: the tracker, and each sink."""
        return dict(self._connection.execute("SELECT name, seq FROM readers"))

    def search(self, needles: tuple[bytes, ...], told: Callable[[int], None]) -> Iterator[Group]:
        """Yield the groups of which runs or peers hold one of `needles`; without any, all of them.

        They come in order. `told` is called with the number of a record as the search goes on.
        """
        after = 0
        while rows := self._step(after, _STEP_BYTES):
            for row in rows:
                if not needles or any(each in row.frames or each in row.head for each in needles):
                    yield _group(row)
            after = rows[-1].first
            told(after)

    def _step(self, after: int, most_bytes: int) -> list[Row[bytes]]:
        rows: list[Row[bytes]] = []
        with stored(self._connection, after + 1) as found:
            for row, _ in found:
                rows.append(Row(row.first, row.records, row.head, row.frames[:], row.checksum))
                most_bytes -= len(row.frames)
                if most_bytes <= 0:
                    break
        first = oldest(self._connection)
        if rows and (first is None or rows[0].first < first):
            # It was trimmed while it was read, and its segment may have been used again.
            return self._step(first - 1, _STEP_BYTES) if first else []
        return rows


@contextmanager
def open_file(folder: Path) -> Iterator[JournalFile]:
    """Open the journal in `folder` for reading.

    Raises:
        StorageUnusable: there is none, or it cannot be read by this user.
        StorageDamaged: it is no journal, or it cannot be read any further.
    """
    path = folder / "journal.db"
    if not path.is_file():
        raise StorageUnusable(f"there is no journal in {folder}")
    try:
        connection = read_only(path)
        try:
            yield JournalFile(path, connection)
        finally:
            connection.close()
    except (apsw.CantOpenError, apsw.ReadOnlyError, apsw.BusyError) as error:
        raise StorageUnusable(f"cannot read {path}: {error}") from error
    except apsw.Error as error:
        raise StorageDamaged(f"the journal cannot be read: {error}") from error


def _group(row: Row[bytes]) -> Group:
    return unpack(row, row.first + row.records - 1, google_crc32c.extend)
