"""The journal on a disk whose syncs are watched: what was accepted outlives a cut of the power."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import apsw
import pytest

from bridge.core.framing import frame
from bridge.errors import StorageDamaged, StorageFull, StorageUnusable
from bridge.journal import Journal, open_journal, segments
from bridge.metrics import Metrics
from bridge.model import Run
from bridge.settings import JournalSettings

MIB = 1024 * 1024
_EVERYTHING = 1 << 40
_SECONDS = 10

both_ways = pytest.mark.parametrize("large_bytes", [_EVERYTHING, 0], ids=["rows", "segments"])
"""Where the frames are."""


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        super().__init__("unix", name, flags)
        self._disk = disk
        self._path = Path(name.filename() if isinstance(name, apsw.URIFilename) else name or "")

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        if self._disk.write_fails is not None:
            raise self._disk.write_fails
        if self._disk.no_room_for and self._path.name.endswith(self._disk.no_room_for):
            raise _failed(apsw.FullError, apsw.SQLITE_FULL)
        self._disk.journal_writes += self._path.suffix == ".db"
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._disk.syncs += 1
        self._disk.answers.wait(_SECONDS)
        if self._disk.sync_fails and self._path.name.endswith(self._disk.sync_fails):
            raise _failed(apsw.IOError, apsw.SQLITE_IOERR_FSYNC)
        super().xSync(flags)
        self._disk.keep(self._path)


class Disk(apsw.VFS):
    """Keeps beside the journal's folder what a cut of the power would leave of its files."""

    def __init__(self, folder: Path) -> None:
        super().__init__("watched", "unix", makedefault=True)
        self._folder = folder
        self._left = folder.with_name("left")
        self._left.mkdir()
        self.syncs = 0
        self.answers = threading.Event()
        """Cleared, a sync does not end."""
        self.answers.set()
        self.sync_fails = ""
        """End of the name of the file that cannot be synced."""
        self.no_room_for = ""
        """End of the name of the file that cannot be written."""
        self.journal_writes = 0
        """Those to the file itself, and not to its WAL."""
        self.write_fails: apsw.Error | None = None

    def xOpen(self, name: Any, flags: list[int]) -> _File:  # noqa: N802
        return _File(self, name, flags)

    def sync(self, file: int) -> None:
        """Sync a segment, or the folder: `journal.segments` does it without SQLite."""
        self.syncs += 1
        self.answers.wait(_SECONDS)
        os.fsync(file)
        path = Path(f"/dev/fd/{file}").resolve()
        if path.is_file():
            self.keep(path)

    def keep(self, path: Path) -> None:
        if path.parent == self._folder:
            shutil.copyfile(path, self._left / path.name)

    def after_a_cut(self) -> AbstractAsyncContextManager[Journal]:
        """Return the journal that is there after a cut of the power."""
        copy = self._folder.with_name("copy")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self._left, copy)
        return _opened(copy)


def _failed(error: type[apsw.Error], extended: int) -> apsw.Error:
    raised = error("made by the test")
    raised.extendedresult = extended  # type: ignore[attr-defined]
    return raised


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk(folder)
    monkeypatch.setattr(segments, "_sync_data", disk.sync)
    yield disk
    disk.unregister()


def _opened(folder: Path, **settings: Any) -> AbstractAsyncContextManager[Journal]:
    return open_journal(JournalSettings(dir=folder, **settings), Metrics())


async def _append(journal: Journal, size: int = 10) -> int:
    return await journal.append([Run("tcp/1", 5, 1, frame(bytes(size)))])


@both_ways
async def test_what_was_accepted_is_there_after_a_cut_of_the_power(
    disk: Disk, folder: Path, large_bytes: int
) -> None:
    async with _opened(folder, large_bytes=large_bytes) as journal:
        journal.register(["tracker"])
        for number in range(1, 6):
            assert await _append(journal, 40_000) == number
            async with disk.after_a_cut() as left:
                assert left.head == number
                assert await left.read(0, _EVERYTHING) == await journal.read(0, _EVERYTHING)
        await journal.advance("tracker", 5, [Run("bridge", 5, 1, frame(b"said"))], {"a": b"1"})
        async with disk.after_a_cut() as left:
            assert (left.head, left.position("tracker")) == (6, 5)
            assert left.items("tracker") == [("a", b"1")]


@both_ways
async def test_a_disk_that_takes_long_holds_up_its_commit_and_nothing_else(
    disk: Disk, folder: Path, large_bytes: int
) -> None:
    async with _opened(folder, large_bytes=large_bytes) as journal:
        await _append(journal)
        disk.answers.clear()
        before = disk.syncs
        appending = asyncio.create_task(_append(journal))
        try:
            async with asyncio.timeout(_SECONDS / 2):
                while disk.syncs == before:
                    await asyncio.sleep(0.001)
            assert (appending.done(), journal.head) == (False, 1)
            assert len(await journal.read(0, 1)) == 1
        finally:
            disk.answers.set()
        assert await appending == 2


async def test_the_log_is_folded_early_behind_small_commits_and_late_behind_large_ones(
    disk: Disk, folder: Path
) -> None:
    for size in (MIB // 4, 4 * MIB):
        folded = [0]
        async with _opened(folder) as journal:
            for _ in range(24 * MIB // size):
                disk.journal_writes = 0
                await _append(journal, size)
                folded.append(folded[-1] + (disk.journal_writes > 0))
        # 24 MB in all: a fold for every 4 of them; or behind each segment, of 16.
        assert folded[-1] in ({5, 6} if size < MIB else {1}), size


async def test_a_sync_that_failed_is_not_tried_again(disk: Disk, folder: Path) -> None:
    async with _opened(folder) as journal:
        await _append(journal)
        before, disk.sync_fails = disk.syncs, "-wal"
        with pytest.raises(StorageDamaged, match="synced"):
            await _append(journal)
        assert disk.syncs == before + 1
        assert journal.head == 1
        disk.sync_fails = ""


async def test_a_sync_that_failed_when_the_log_was_folded_ends_it_too(
    disk: Disk, folder: Path
) -> None:
    async with _opened(folder) as journal:
        disk.sync_fails = ".db"
        with pytest.raises(StorageDamaged, match="synced"):
            for _ in range(40):
                await _append(journal, MIB // 4)
        disk.sync_fails = ""
        # It was committed before. SQLite would have tried again, and then begun the log anew.
        async with disk.after_a_cut() as left:
            assert left.head > journal.head > 10


async def test_a_fold_for_which_there_is_no_room_is_no_failure_of_the_commit(
    disk: Disk, folder: Path
) -> None:
    async with _opened(folder) as journal:
        disk.no_room_for = ".db"
        for number in range(1, 41):
            assert await _append(journal, MIB // 4) == number
        disk.no_room_for = ""
        await _append(journal)
        async with disk.after_a_cut() as left:
            assert left.head == 41


@pytest.mark.parametrize(
    "error",
    [
        _failed(apsw.FullError, apsw.SQLITE_FULL),
        _failed(apsw.IOError, apsw.SQLITE_IOERR_WRITE),
    ],
    ids=["no room", "a failed write"],
)
async def test_a_write_that_failed_is_told_as_full_and_can_be_done_again(
    disk: Disk, folder: Path, error: apsw.Error
) -> None:
    async with _opened(folder) as journal:
        await _append(journal)
        disk.write_fails = error
        for _ in range(2):
            with pytest.raises(StorageFull):
                await _append(journal)
        disk.write_fails = None
        assert await _append(journal) == 2
        async with disk.after_a_cut() as left:
            assert left.head == 2


@both_ways
async def test_nothing_is_trimmed_behind_a_checkpoint_that_is_not_yet_on_the_disk(
    disk: Disk, folder: Path, large_bytes: int
) -> None:
    async with _opened(folder, replay_bytes=0, large_bytes=large_bytes) as journal:
        journal.register(["sink"])
        for _ in range(10):
            await _append(journal)
        journal.checkpoint("sink", 10)
        for trim in (journal._trim, journal._make_room):
            await journal._in(journal._write_thread, trim)
            async with disk.after_a_cut() as left:
                kept = [group.first for group in await left.read(0, 1 << 20)]
                assert not any(group.damaged for group in await left.read(0, 1 << 20))
                assert kept == list(range(left.position("sink") + 1, 11))


async def test_only_one_connection_can_write(folder: Path) -> None:
    async with _opened(folder) as journal:
        await _append(journal)
        for connection in (journal._reader, journal._items):
            with pytest.raises(apsw.ReadOnlyError):
                connection.execute("DELETE FROM groups")
            with pytest.raises(apsw.ReadOnlyError):
                connection.execute("CREATE TABLE another (value)")


async def test_where_there_is_no_wal_there_is_no_journal(folder: Path) -> None:
    # On such files SQLite takes another mode, without an error.
    without_wal = apsw.VFS("without-wal", "unix-dotfile", makedefault=True)
    try:
        with pytest.raises(StorageUnusable, match="WAL"):
            async with _opened(folder):
                pass
    finally:
        without_wal.unregister()
