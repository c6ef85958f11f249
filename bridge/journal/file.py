"""The journal's file and its lock: how they are opened, and what SQLite's errors mean."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import apsw

from bridge.errors import AlreadyRunning, StorageDamaged, StorageFull, StorageUnusable

__all__ = [
    "PAGE_BYTES",
    "WalLength",
    "connect",
    "fold",
    "fold_behind",
    "locked",
    "one",
    "read_only",
    "refuse",
    "roll_back",
]

PAGE_BYTES = 16_384
_WAL_PAGES = 250
"""Of the WAL before it is folded into the file, 4 MB: the commit that is next waits for it."""

_YOUNG_PAGES = 64
"""Of a file that may grow to this, 1 MB, in the room of the reserve: a quarter of that, once and for all."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value ANY) STRICT;
CREATE TABLE IF NOT EXISTS readers (name TEXT PRIMARY KEY, seq INTEGER, state BLOB) STRICT;
CREATE TABLE IF NOT EXISTS groups (
    first INTEGER PRIMARY KEY, count INTEGER, checksum INTEGER, head BLOB, frames BLOB
) STRICT;
CREATE TABLE IF NOT EXISTS places (
    first INTEGER PRIMARY KEY, segment INTEGER, at INTEGER, size INTEGER
) STRICT;
CREATE TABLE IF NOT EXISTS items (
    reader TEXT, name TEXT, value BLOB, PRIMARY KEY (reader, name)
) STRICT, WITHOUT ROWID;
"""
_FORMAT, _WITHOUT_SEGMENTS = 2, 1
_SYNC_FAILURES = {
    apsw.SQLITE_IOERR_FSYNC,
    apsw.SQLITE_IOERR_DIR_FSYNC,
    apsw.SQLITE_IOERR_READ,
    apsw.SQLITE_IOERR_SHORT_READ,
    apsw.SQLITE_IOERR_CORRUPTFS,
}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of the journal in `folder`, which is made where it is missing.

    Raises:
        AlreadyRunning: another process holds it.
        StorageUnusable: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "journal.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StorageUnusable(f"cannot use {folder}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise AlreadyRunning(f"another instance holds {folder}") from error
        yield
    finally:
        os.close(lock)


def connect(path: Path) -> tuple[apsw.Connection, apsw.Connection]:
    """Open the file, making it where there is none: a connection that writes, one that reads.

    Raises:
        StorageUnusable: it cannot be opened, or is of another format.
        StorageDamaged: it is no journal.
    """
    try:
        return _connect(path)
    except apsw.CantOpenError as error:
        raise StorageUnusable(f"cannot open {path}: {error}") from error
    except apsw.Error as error:
        refuse(error)


def _connect(path: Path) -> tuple[apsw.Connection, apsw.Connection]:
    writer = apsw.Connection(str(path))
    writer.set_busy_timeout(5_000)
    for pragma in (
        f"page_size = {PAGE_BYTES}",
        "auto_vacuum = INCREMENTAL",
        "journal_mode = WAL",
        "synchronous = FULL",
        "journal_size_limit = 67108864",
    ):
        writer.execute(f"PRAGMA {pragma}")
    mode, level = one(writer, "PRAGMA journal_mode"), one(writer, "PRAGMA synchronous")
    if (mode, level) != ("wal", 2):
        raise StorageUnusable(f"{path} works in mode {mode}, level {level}; it needs WAL and FULL")
    with writer:
        writer.execute(_SCHEMA)
        writer.execute(
            "INSERT OR IGNORE INTO meta VALUES ('format', ?), ('epoch', ?)",
            (_FORMAT, secrets.token_hex(8)),
        )
        # It differs in what it does not have.
        writer.execute(
            "UPDATE meta SET value = ? WHERE name = 'format' AND value = ?",
            (_FORMAT, _WITHOUT_SEGMENTS),
        )
    found = one(writer, "SELECT value FROM meta WHERE name = 'format'")
    if found != _FORMAT:
        raise StorageUnusable(f"{path} has format {found}; this version reads {_FORMAT}")
    return writer, read_only(path)


def read_only(path: Path) -> apsw.Connection:
    """Return a connection that reads, for one thread. Its transactions are to be short."""
    reader = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    reader.set_busy_timeout(5_000)
    return reader


def one(connection: apsw.Connection, sql: str) -> Any:
    """Return the one value that `sql` asks for."""
    return next(iter(connection.execute(sql)))[0]


class WalLength:
    """How many pages the WAL has; with this SQLite folds it no more by itself."""

    def __init__(self, writer: apsw.Connection) -> None:
        self.pages = 0
        writer.set_wal_hook(self._note)

    def _note(self, _writer: apsw.Connection, _name: str, pages: int) -> int:
        self.pages = pages
        return apsw.SQLITE_OK


def fold_behind(writer: apsw.Connection, pages: int, *, at_once: bool = False) -> None:
    """Fold the WAL, of so many pages, into the file behind a commit, if it is long enough.

    Or `at_once`: behind a segment that is whole, for if the WAL is damaged much is lost that is not in it.
    Where the disk has no room for it the WAL stays: what was committed is in there.

    Raises:
        StorageDamaged: a sync failed. SQLite's own folding would pass over that, and try again.
    """
    if pages < _WAL_PAGES and not at_once:
        return
    with suppress(StorageFull):
        try:
            writer.wal_checkpoint()
        except apsw.Error as error:
            refuse(error)


def fold(writer: apsw.Connection, *, may_grow: bool = False) -> None:
    """Fold the WAL into the file and begin it anew, if the file need not grow for it.

    Or `may_grow` while it is small: the file of a young journal has no room inside.

    Raises:
        StorageFull: it takes room all the same.
    """
    try:
        pages = one(writer, "PRAGMA page_count")
        # Those that are in the WAL alone; so many must be free, and are cut off.
        beyond = pages - Path(writer.filename).stat().st_size // PAGE_BYTES
        if beyond > one(writer, "PRAGMA freelist_count") and not (
            may_grow and pages < _YOUNG_PAGES
        ):
            return
        if beyond > 0:
            # Pages that are cut off are not written, unless the cache spills them before.
            writer.execute("PRAGMA cache_spill = OFF")
            list(writer.execute(f"PRAGMA incremental_vacuum({beyond})"))
        writer.wal_checkpoint()
    except apsw.Error as error:
        refuse(error)
    finally:
        writer.execute("PRAGMA cache_spill = ON")


def roll_back(writer: apsw.Connection) -> None:
    """Undo the transaction that is open, if one is.

    Raises:
        StorageFull, StorageDamaged: as `refuse`.
    """
    if not writer.get_autocommit():
        try:
            writer.execute("ROLLBACK")
        except apsw.Error as error:
            refuse(error)


def refuse(error: apsw.Error) -> NoReturn:
    """Say in the bridge's terms what SQLite raised: is it space, or is it trust?"""
    if isinstance(error, apsw.BusyError):
        raise StorageFull(f"another program has the journal's file locked: {error}") from error
    if isinstance(error, apsw.FullError):
        raise StorageFull(f"the journal's disk is full: {error}") from error
    if isinstance(error, apsw.IOError):
        if getattr(error, "extendedresult", 0) in _SYNC_FAILURES:
            raise StorageDamaged(f"the journal could not be synced: {error}") from error
        raise StorageFull(f"the journal could not be written: {error}") from error
    raise StorageDamaged(f"the journal cannot be trusted: {error}") from error
