"""Rows of the journal's tables: a commit is cut into them, and what they tell of the journal as a whole.

How their frames are read is in `journal.stored`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import apsw
import google_crc32c

from bridge.core.groups import Row, unpack
from bridge.errors import StorageDamaged
from bridge.journal.file import one, refuse
from bridge.journal.segments import Place, Referred
from bridge.journal.stored import row_with, stored
from bridge.model import Group, Run

__all__ = [
    "ITEM",
    "ITEMS",
    "MOVE",
    "Inherited",
    "checkpoints",
    "delete",
    "groups_after",
    "inherited",
    "insert",
    "look",
    "oldest",
    "parts",
    "passed",
    "referred",
]

ITEMS = "SELECT name, value FROM items WHERE reader = ? ORDER BY name"
ITEM = "SELECT value FROM items WHERE reader = ? AND name = ?"
"""The state of a reader, and one part of it."""

MOVE = (
    "INSERT INTO readers (name, seq, state) VALUES (?, ?, ?)"
    " ON CONFLICT (name) DO UPDATE SET seq = excluded.seq, state = excluded.state"
)
"""Moves the checkpoint of a reader."""

_REFERRED = """
SELECT segment, max(first), max(iif(typeof(at) = 'integer' AND typeof(size) = 'integer', at + size, 0))
FROM places WHERE typeof(segment) = 'integer' AND segment BETWEEN 1 AND 999999999999
GROUP BY segment"""

_NEWEST = 2**63 - 1
"""No record has a higher number."""

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


def insert(connection: apsw.Connection, row: Row[list[bytes]], place: Place | None) -> None:
    """Insert a row, whose frames are at `place` if that is given."""
    frames = b"" if place else b"".join(row.frames)
    connection.execute(
        "INSERT INTO groups (first, count, checksum, head, frames) VALUES (?,?,?,?,?)",
        (row.first, row.records, row.checksum, row.head, frames),
    )
    if place:
        connection.execute("INSERT INTO places VALUES (?,?,?,?)", (row.first, *place))


def delete(connection: apsw.Connection, last: int) -> None:
    """Delete the rows up to the one that begins with that record, in one transaction."""
    with connection:
        connection.execute("DELETE FROM groups WHERE first <= ?", (last,))
        connection.execute("DELETE FROM places WHERE first <= ?", (last,))


def referred(connection: apsw.Connection) -> dict[int, Referred]:
    """Return what the rows tell of each segment; what can be none for its form is left out.

    Raises:
        StorageDamaged: the file is damaged there.
    """
    try:
        return {segment: Referred(*told) for segment, *told in connection.execute(_REFERRED)}
    except apsw.Error as error:
        refuse(error)


def passed(connection: apsw.Connection, delivered: int) -> tuple[int, int]:
    """Return segment and place in front of which is nothing but records up to `delivered`.

    Raises:
        StorageDamaged: the file is damaged there.
    """
    sql = "SELECT segment, at FROM places WHERE first <= ? ORDER BY first DESC LIMIT 1"
    try:
        for segment, at in connection.execute(sql, (delivered,)):
            if isinstance(segment, int) and isinstance(at, int):
                return segment, at
    except apsw.Error as error:
        refuse(error)
    return 0, 0


def look(connection: apsw.Connection, sql: str, values: tuple[str, ...]) -> list[Any]:
    """Return what `sql` finds.

    Raises:
        StorageDamaged: it cannot be read.
    """
    try:
        return list(connection.execute(sql, values))
    except apsw.Error as error:
        raise StorageDamaged(f"the journal cannot be read: {error}") from error


def oldest(connection: apsw.Connection) -> int | None:
    """Return the number of the first record kept; None where there is none.

    Raises:
        StorageDamaged: the file is damaged there.
    """
    try:
        first: int | None = one(connection, "SELECT min(first) FROM groups")
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


class Inherited(NamedTuple):
    """How the journal ended when it was opened."""

    last_row: int
    """Number of the first record of the last row."""
    head: int
    """Number of the last record."""


def inherited(connection: apsw.Connection) -> Inherited:
    """Return how the journal ends.

    A damaged row may tell any count: then the readers know better.

    Raises:
        StorageDamaged: as `checkpoints`.
    """
    head = max((seq for _, seq, _ in checkpoints(connection)), default=0)
    with stored(connection, row_with(connection, _NEWEST)) as found:
        for row, _ in found:
            last = row.first + row.records - 1
            whole = not unpack(row, last, google_crc32c.extend).damaged
            return Inherited(row.first, max(head, last if whole else row.first))
    return Inherited(0, head)


def groups_after(
    connection: apsw.Connection, after: int, max_bytes: int, then: Inherited, head: int
) -> list[Group]:
    """Return what `ports.Journal.read` gives, as it is on the disk; nothing where all was trimmed.

    `then` is how the journal began, `head` the last record known now.

    Raises:
        StorageDamaged: it cannot be read.
    """
    groups: list[Group] = []
    taken = 0
    try:
        with stored(connection, row_with(connection, after + 1)) as found:
            for row, follower in found:
                if follower is not None:
                    last = follower - 1
                elif row.first == then.last_row:
                    last = then.head
                else:
                    # Its own count may be what is damaged.
                    last = max(row.first + row.records - 1, head)
                if last <= after:
                    continue
                taken += len(row.frames)
                if groups and taken > max_bytes:
                    break
                groups.append(unpack(row, last, google_crc32c.extend))
        first = oldest(connection)
    except apsw.Error as error:
        raise StorageDamaged(f"the journal cannot be read: {error}") from error
    if groups and (first is None or groups[0].last < first):
        # It was trimmed while it was read, and its segment may have been used again.
        return groups_after(connection, first - 1, max_bytes, then, head) if first else []
    return groups
