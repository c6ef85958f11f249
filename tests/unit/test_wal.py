"""`journal.wal`: damage inside the WAL is told and kept; a torn end is neither."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import apsw
import pytest

from bridge.core.framing import frame
from bridge.journal import Journal, open_journal
from bridge.journal.file import PAGE_BYTES
from bridge.metrics import Metrics
from bridge.model import Run
from bridge.settings import JournalSettings

_HEADER_BYTES = 32
_STEP = 24 + PAGE_BYTES
_COMMITS = 20


def _opened(folder: Path) -> Any:
    return open_journal(JournalSettings(dir=folder), Metrics())


async def _append(journal: Journal) -> None:
    await journal.append([Run("tcp/1", 5, 1, frame(b"%d" % journal.head))])


@pytest.fixture
async def crashed(tmp_path: Path) -> Path:
    """A folder as a crash leaves it: all commits are in the WAL."""
    copy = tmp_path / "crashed"
    copy.mkdir()
    async with _opened(tmp_path / "live") as journal:
        for _ in range(_COMMITS):
            await _append(journal)
        for name in ("journal.db", "journal.db-wal"):
            shutil.copy(tmp_path / "live" / name, copy)
    return copy


def _flip(path: Path, at: int) -> None:
    held = bytearray(path.read_bytes())
    held[at] ^= 4
    path.write_bytes(held)


async def test_a_whole_wal_is_not_touched(crashed: Path) -> None:
    async with _opened(crashed) as journal:
        assert (journal.head, journal.cut_off) == (_COMMITS, 0)
    assert not list(crashed.glob("*.damaged"))


async def test_a_torn_last_transaction_is_no_damage(crashed: Path) -> None:
    wal = crashed / "journal.db-wal"
    with wal.open("r+b") as file:
        file.truncate(wal.stat().st_size - 100)
    async with _opened(crashed) as journal:
        assert (journal.head, journal.cut_off) == (_COMMITS - 1, 0)


async def test_a_crash_when_the_wal_begins_anew_is_no_damage(crashed: Path) -> None:
    """Its new header is synced before its first frame: until then the old ones stand behind it."""
    wal = crashed / "journal.db-wal"
    old = wal.read_bytes()
    connection = apsw.Connection(str(crashed / "journal.db"))
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    connection.execute("CREATE TABLE other (a)")
    connection.close()
    new = wal.read_bytes()
    assert new[:_HEADER_BYTES] != old[:_HEADER_BYTES]
    wal.write_bytes(new[:_HEADER_BYTES] + old[_HEADER_BYTES:])
    async with _opened(crashed) as journal:
        assert (journal.head, journal.cut_off) == (_COMMITS, 0)
    assert not list(crashed.glob("*.damaged"))


@pytest.mark.parametrize("at", [3, 17, 25, 32 + 4, 32 + 10, 32 + 6 * _STEP + 5_000])
async def test_a_bit_that_turned_is_told_and_the_wal_is_kept(crashed: Path, at: int) -> None:
    wal = crashed / "journal.db-wal"
    _flip(wal, at)
    before = wal.read_bytes()
    async with _opened(crashed) as journal:
        assert journal.head < _COMMITS
        # What made the tables is among what is cut off at the very beginning.
        assert journal.cut_off >= _COMMITS - journal.head
        await _append(journal)
        head = journal.head
    assert (crashed / "journal.db-wal.damaged").read_bytes() == before
    async with _opened(crashed) as journal:
        assert (journal.head, journal.cut_off) == (head, 0)


async def test_after_a_cut_off_a_crash_is_a_crash_again(crashed: Path, tmp_path: Path) -> None:
    _flip(crashed / "journal.db-wal", 32 + 6 * _STEP + 5_000)
    again = tmp_path / "again"
    again.mkdir()
    async with _opened(crashed) as journal:
        await _append(journal)
        head = journal.head
        for name in ("journal.db", "journal.db-wal"):
            shutil.copy(crashed / name, again)
    async with _opened(again) as journal:
        assert (journal.head, journal.cut_off) == (head, 0)
