"""Tells a damaged WAL from a torn one. SQLite takes both for torn, and forgets what follows.

After a crash that is right: each transaction was synced before the next began, so only the last can
be torn. Damage further in front would silently take accepted events away. So: behind the last
transaction that SQLite finds whole, more than one end of a transaction is damage, and not a crash.

The form is SQLite's (its "Database File Format", "The Write-Ahead Log"): a header, then frames,
each with its own header and a page. Frames of one generation carry the same two salts. A WAL that
begins anew gets its header first, and old frames stand behind that until they are written over:
a crash in between leaves a good header and no frame of its generation, and has taken nothing away.
"""

from __future__ import annotations

import shutil
import struct
from pathlib import Path
from typing import NamedTuple

import apsw

from bridge.errors import StorageUnusable
from bridge.journal.file import PAGE_BYTES, refuse

__all__ = ["set_damage_aside"]

_HEADER = struct.Struct(">IIII8sII")
"""Magic, version, page size, checkpoint number, salts, checksums."""

_FRAME = struct.Struct(">II8sII")
"""Page, pages of the database (not 0 at the end of a transaction), salts, checksums."""

_MAGIC = {0x377F0682, 0x377F0683}
_SUMMED_BYTES = 24
"""Of the header, in front of its checksums."""

_WORD = 0xFFFFFFFF


class _Frame(NamedTuple):
    ends: bool
    salts: bytes


def set_damage_aside(path: Path) -> int:
    """Keep the WAL of the journal at `path` if it is damaged, and go on with what is whole of it.

    Returns how many transactions are cut off. The copy lies beside it, as `.damaged`. Nobody else
    may have the journal open.

    Raises:
        StorageUnusable: the copy cannot be written.
        StorageFull, StorageDamaged: what is whole cannot be folded into the file.
    """
    log = path.with_name(f"{path.name}-wal")
    salts, frames = _frames(log)
    if not frames:
        return 0
    try:
        lost = _cut_off(path, salts, frames)
    except apsw.Error:
        # What SQLite itself notices is told when the journal is opened.
        return 0
    if lost:
        try:
            shutil.copy2(log, log.with_name(f"{log.name}.damaged"))
        except OSError as error:
            raise StorageUnusable(f"{log} is damaged, and cannot be copied: {error}") from error
        _empty(path)
    return lost


def _empty(path: Path) -> None:
    """Fold the WAL into the file: frames behind the damage would look like damage again."""
    try:
        connection = apsw.Connection(str(path))
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            connection.close()
    except apsw.Error as error:
        refuse(error)


def _frames(log: Path) -> tuple[bytes, list[_Frame]]:
    """Return the salts, and the headers of all frames; no frames where there is no WAL."""
    try:
        with log.open("rb") as file:
            header = file.read(_HEADER.size)
            *_, salts, _, _ = _HEADER.unpack(header)
            frames = []
            while len(head := file.read(_FRAME.size)) == _FRAME.size:
                _, pages, own, *_ = _FRAME.unpack(head)
                frames.append(_Frame(pages > 0, own))
                file.seek(PAGE_BYTES, 1)
    except (FileNotFoundError, struct.error):
        return b"", []
    if frames and not _is_sound(header):
        # The first frame tells better which generation it is.
        salts = frames[0].salts
    return salts, frames


def _is_sound(header: bytes) -> bool:
    """Say whether a WAL's header is of the journal's form, and has the checksums of its own."""
    magic, _, page, *_, first, second = _HEADER.unpack(header)
    if magic not in _MAGIC or page != PAGE_BYTES:
        return False
    # The magic's last bit says in which order of bytes the words are summed.
    words = struct.unpack(">6I" if magic & 1 else "<6I", header[:_SUMMED_BYTES])
    one = two = 0
    for even, odd in zip(words[::2], words[1::2], strict=True):
        one = (one + even + two) & _WORD
        two = (two + odd + one) & _WORD
    return (one, two) == (first, second)


def _cut_off(path: Path, salts: bytes, frames: list[_Frame]) -> int:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        # Closing is not to fold the WAL into the file.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        _, whole, _ = next(iter(connection.execute("PRAGMA wal_checkpoint(NOOP)")))
    finally:
        connection.close()
    ends = sum(each.ends and each.salts == salts for each in frames[max(0, whole) :])
    return ends if ends > 1 else 0
