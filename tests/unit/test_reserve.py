"""`journal.reserve`: on a disk that somebody else has filled to the last byte."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from bridge.core.framing import frame
from bridge.errors import StorageFull
from bridge.journal import Journal, open_journal
from bridge.journal.reserve import SLICE_BYTES, WHOLE_BYTES, Reserve
from bridge.journal.segments import FEW_SPARES
from bridge.metrics import Metrics
from bridge.model import Run
from bridge.settings import JournalSettings
from tests.support.records import records
from tests.support.small_disk import CannotMount, SmallDisk, small_disk

_EVENT_BYTES = 100_000


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallDisk]:
    try:
        with small_disk(tmp_path / "disk", request.param, 96) as mounted:
            yield mounted
    except CannotMount as reason:
        pytest.skip(f"NOT TESTED, no {request.param} of its own: {reason}")


def _run(first: int, *, size: int = _EVENT_BYTES) -> Run:
    return Run("tcp/1", 5, 1, frame(b"%d" % first + bytes(size)))


def _settings(disk: SmallDisk) -> JournalSettings:
    return JournalSettings(dir=disk.folder / "journal", replay_seconds=3600)


async def _fed(journal: Journal, count: int, size: int = _EVENT_BYTES) -> None:
    for _ in range(count):
        await journal.append([_run(journal.head + 1, size=size)])


async def _until_full(journal: Journal, disk: SmallDisk, size: int = _EVENT_BYTES) -> None:
    """Let the disk be full, and the journal too: its own files have no room left inside."""
    disk.fill()
    with pytest.raises(StorageFull):
        await _fed(journal, 1_000, size)


async def test_what_is_urgent_is_written_on_a_full_disk_and_is_there_after_a_crash(
    disk: SmallDisk,
) -> None:
    async with open_journal(_settings(disk), Metrics()) as journal:
        journal.register(["sink"])
        await _fed(journal, 20)
        await _until_full(journal, disk)
        full = journal.head
        assert await journal.append([_run(full + 1, size=500)], urgent=True) == full + 1
        # The room that was made is not for the feed: others would have taken it meanwhile.
        disk.fill()
        with pytest.raises(StorageFull):
            await journal.append([_run(full + 2)])
        assert await journal.append([_run(full + 2, size=500)], urgent=True) == full + 2

    # Opened anew on the full disk.
    disk.fill()
    async with open_journal(_settings(disk), Metrics()) as journal:
        assert journal.head == full + 2
        assert await journal.append([_run(full + 3, size=500)], urgent=True) == full + 3
        groups = await journal.read(full, 1 << 30)
        found = [record.payload.rstrip(b"\0") for group in groups for record in records(group)]
        assert found == [b"%d" % seq for seq in range(full + 1, full + 4)]


@pytest.mark.parametrize("size", [_EVENT_BYTES, 10 * _EVENT_BYTES], ids=["rows", "segments"])
@pytest.mark.parametrize("opened_anew", [False, True])
async def test_on_a_full_disk_what_was_delivered_makes_room_which_nobody_else_gets(
    disk: SmallDisk, opened_anew: bool, size: int
) -> None:
    async with AsyncExitStack() as until:
        journal = await until.enter_async_context(open_journal(_settings(disk), Metrics()))
        # So many that the WAL was folded into the file, which then has room inside.
        await _fed(journal, 400 * _EVENT_BYTES // size, size)
        if opened_anew:
            # All of it is folded then, and there is no WAL to write on in.
            await until.aclose()
            journal = await until.enter_async_context(open_journal(_settings(disk), Metrics()))
        journal.register(["sink"])
        await _until_full(journal, disk, size)
        full = journal.head
        for _ in range(3):
            journal.checkpoint("sink", full)
            await _fed(journal, 1, size)
            assert disk.fill() < SLICE_BYTES
            with pytest.raises(StorageFull):
                await _fed(journal, 1_000, size)
            assert journal.head > full + 50 * _EVENT_BYTES // size
            full = journal.head


@pytest.mark.parametrize(
    ("before", "after"),
    [(1_000_000, 10_000), (1_000_000, 200_000), (_EVENT_BYTES, 1_000_000)],
    ids=["segments, then small ones", "segments, then middling ones", "rows, then large ones"],
)
async def test_on_a_full_disk_what_was_delivered_makes_room_for_commits_of_another_size(
    disk: SmallDisk, before: int, after: int
) -> None:
    async with open_journal(_settings(disk), Metrics()) as journal:
        journal.register(["sink"])
        await _fed(journal, 40_000_000 // before, before)
        await _until_full(journal, disk, before)
        for _ in range(60):
            journal.checkpoint("sink", journal.head)
            await _fed(journal, 2_000_000 // after, after)
            disk.fill()
        (*_, last) = await journal.read(journal.head - 1, 1 << 30)
        assert not last.damaged


async def test_spares_stay_for_as_long_as_room_is_short(disk: SmallDisk) -> None:
    async with open_journal(_settings(disk), Metrics()) as journal:
        journal.register(["sink"])
        await _fed(journal, 60, 1_000_000)
        await _until_full(journal, disk, 1_000_000)
        journal.checkpoint("sink", 60)
        await journal._in(journal._write_thread, journal._make_room)
        folder = disk.folder / "journal"
        assert len(list(folder.glob("spare-*"))) == 4
        for size in (0, 1_000_000):
            await _fed(journal, 1, size)
            journal.checkpoint("sink", journal.head)
            await journal.flush()
            await journal._in(journal._write_thread, journal._trim)
        assert len(list(folder.glob("s*-0*"))) == 4
        disk.free()
        await journal._in(journal._write_thread, journal._trim)
        assert len(list(folder.glob("spare-*"))) == FEW_SPARES


async def test_making_room_leaves_enough_of_the_reserve_for_an_alert(disk: SmallDisk) -> None:
    async with open_journal(_settings(disk), Metrics()) as journal:
        journal.register(["sink", "one that is away"])
        await _fed(journal, 20)
        await _until_full(journal, disk)
        reserve = disk.folder / "journal" / "reserve"
        before = reserve.stat().st_size
        # Each time there is a checkpoint to be written down, and nothing to be freed.
        for turn in range(400):
            journal.checkpoint("sink", turn % 2)
            with pytest.raises(StorageFull):
                await journal.append([_run(journal.head + 1, size=2 * SLICE_BYTES)])
        assert reserve.stat().st_size < before
        disk.fill()
        await journal.append([_run(journal.head + 1, size=500)], urgent=True)


async def test_the_reserve_is_whole_again_when_there_is_room(disk: SmallDisk) -> None:
    reserve = Reserve(disk.folder / "reserve")

    def never() -> None:
        raise StorageFull("full")

    with pytest.raises(StorageFull):
        reserve.spend(never, spare=2)
    assert (disk.folder / "reserve").stat().st_size == 2 * SLICE_BYTES
    disk.fill()
    reserve.fill()
    assert (disk.folder / "reserve").stat().st_size == 2 * SLICE_BYTES
    disk.free()
    reserve.fill()
    status = (disk.folder / "reserve").stat()
    assert status.st_size == WHOLE_BYTES
    assert status.st_blocks * 512 >= WHOLE_BYTES


async def test_where_there_is_no_room_for_a_reserve_the_journal_works_without(
    disk: SmallDisk,
) -> None:
    disk.fill()
    disk.free(WHOLE_BYTES)
    async with open_journal(_settings(disk), Metrics()) as journal:
        assert not (disk.folder / "journal" / "reserve").exists()
        await _fed(journal, 5)
        assert journal.head == 5
