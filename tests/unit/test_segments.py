"""`journal.segments`: frames of large commits in files of their own."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from bridge.core import groups
from bridge.errors import StorageDamaged, StorageFull, StorageUnusable
from bridge.journal import Journal, rows, segments
from bridge.journal.reading import open_file
from bridge.journal.segments import FEW_SPARES, segment_path
from bridge.model import Group
from tests.unit.test_journal import MIB, fill, held, numbered, opened, right, stored

_LARGE = 100_000
_CAP = 16 * MIB
"""Segments are of 2 MiB then."""


def _files(folder: Path, name: str = "segment") -> list[str]:
    return sorted(path.name for path in folder.glob(f"{name}-*"))


def _places(journal: Journal) -> list[tuple[int, int, int, int]]:
    return list(journal._writer.execute("SELECT first, segment, at, size FROM places"))


async def _trim(journal: Journal, **how: bool) -> None:
    def all_of_it() -> None:
        while journal._trim(**how):
            pass

    await journal._in(journal._write_thread, all_of_it)


async def test_the_frames_of_large_commits_alone_are_in_segments(tmp_path: Path) -> None:
    async with opened(tmp_path, large_bytes=_LARGE) as journal:
        for size in (10, 200_000, 20, 300_000, 30):
            await fill(journal, 1, size=size)
        assert [first for first, *_ in _places(journal)] == [2, 4]
        assert held(await stored(journal)) == right(1, 5)
        with open_file(tmp_path) as beside:
            assert held(beside.search((), lambda _: None)) == right(1, 5)
    assert (tmp_path / "journal.db").stat().st_size < _LARGE * 2
    assert sum(path.stat().st_size for path in tmp_path.glob("segment-*")) > 500_000


async def test_a_commit_whose_parts_are_many_is_read_as_it_was(tmp_path: Path) -> None:
    async with opened(tmp_path, large_bytes=_LARGE) as journal:
        await journal.append([numbered(seq, size=60_000) for seq in range(1, 21)])
        assert len(_places(journal)) > 1
        assert len({segment for _, segment, *_ in _places(journal)}) == 1
        assert held(await stored(journal)) == right(1, 20)


async def test_what_a_crash_leaves_behind_is_never_written_over(tmp_path: Path) -> None:
    async with opened(tmp_path, large_bytes=0) as journal:
        await fill(journal, 3)
    (first,) = tmp_path.glob("segment-*")
    torn = b"written, and never committed"
    with first.open("ab") as file:
        file.write(torn)
    async with opened(tmp_path, large_bytes=0) as journal:
        await fill(journal, 3)
        assert held(await stored(journal)) == right(1, 6)
    assert first.read_bytes().endswith(torn)
    assert len(_files(tmp_path)) == 2


async def test_segments_that_nothing_refers_to_are_used_again(tmp_path: Path) -> None:
    async with opened(tmp_path, large_bytes=0, replay_bytes=0, max_bytes=_CAP) as journal:
        journal.register(["reader"])
        for _ in range(20):
            await fill(journal, 8, size=MIB)
            assert len(_files(tmp_path)) <= 5
            journal.checkpoint("reader", journal.head - 1)
            await journal.flush()
            await _trim(journal)
            assert held(await stored(journal, journal.head - 1)) == right(
                journal.head, journal.head
            )
            assert len(_files(tmp_path, "spare")) <= FEW_SPARES
        assert journal._used() < 4 * MIB
        inodes = {path.stat().st_ino for path in tmp_path.glob("s*-*")}
        assert len(inodes) <= 1 + FEW_SPARES
        assert _places(journal)[0][1] > 40


async def test_where_room_is_short_all_that_is_given_up_is_kept_to_be_used_again(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path, large_bytes=0, replay_seconds=3600, max_bytes=_CAP) as journal:
        journal.register(["reader"])
        await fill(journal, 12, size=MIB)
        journal.checkpoint("reader", 12)
        await journal._in(journal._write_thread, journal._make_room)
        assert _files(tmp_path) == []
        assert len(_files(tmp_path, "spare")) == 6
        assert journal._used() < MIB
        await fill(journal, 12, size=MIB)
        assert _files(tmp_path, "spare") == []
        assert held(await stored(journal, 12)) == right(13, 24)


async def test_spares_are_found_again_at_the_next_start(tmp_path: Path) -> None:
    settings = {"large_bytes": 0, "replay_seconds": 3600, "max_bytes": _CAP}
    async with opened(tmp_path, **settings) as journal:
        journal.register(["reader"])
        await fill(journal, 6, size=MIB)
        journal.checkpoint("reader", 6)
        await journal._in(journal._write_thread, journal._make_room)
    async with opened(tmp_path, **settings) as journal:
        await fill(journal, 6, size=MIB)
        assert _files(tmp_path, "spare") == []
        assert len(_files(tmp_path)) == 3


# Damage


def _gone(file: Path) -> None:
    file.unlink()


def _cut(file: Path) -> None:
    os.truncate(file, 4096)


def _turned(file: Path) -> None:
    with file.open("r+b") as opened_:
        for at in (4100, 8200):
            opened_.seek(at)
            opened_.write(b"\x21")


@pytest.mark.parametrize(
    ("damage", "whole"),
    [(_gone, [3]), (_cut, [1, 3]), (_turned, [1, 3])],
    ids=["gone", "cut", "turned"],
)
async def test_a_damaged_segment_is_told_by_number_and_others_are_read(
    tmp_path: Path, damage: Callable[[Path], None], whole: list[int]
) -> None:
    async with opened(tmp_path, large_bytes=0) as journal:
        await fill(journal, 1)
        await fill(journal, 1)
        # Both are in the same one; damage is to the second's page.
        assert [at for _, _, at, _ in _places(journal)] == [0, 4096]
    damage(segment_path(tmp_path, 1))
    async with opened(tmp_path, large_bytes=0) as journal:
        assert await journal.append([numbered(3)]) == 3
        groups = await stored(journal)
        assert [(group.first, group.last) for group in groups] == [(1, 1), (2, 2), (3, 3)]
        assert [group.first for group in groups if not group.damaged] == whole
    with open_file(tmp_path) as beside:
        found = list(beside.search((), lambda _: None))
        assert [group.first for group in found if not group.damaged] == whole


@pytest.mark.parametrize("column", ["segment", "at", "size"])
@pytest.mark.parametrize("value", ["NULL", "-1", "9", str(2**62)])
@pytest.mark.parametrize("first", [1, 3])
async def test_a_damaged_place_is_a_damaged_group(
    tmp_path: Path, column: str, value: str, first: int
) -> None:
    async with opened(tmp_path, large_bytes=0) as journal:
        journal.register(["reader"])
        await fill(journal, 3)
        journal._writer.execute(f"UPDATE places SET {column} = {value} WHERE first = {first}")
        groups = await stored(journal)
        assert [group.first for group in groups if group.damaged] == [first]
    async with opened(tmp_path, large_bytes=0, replay_bytes=0) as journal:
        journal.register(["reader"])
        assert journal.head == 3
        await fill(journal, 1)
        journal.checkpoint("reader", 4)
        await journal.flush()
        await _trim(journal)


async def test_a_segment_that_cannot_be_read_is_told_as_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async with opened(tmp_path, large_bytes=0) as journal:
        await fill(journal, 1)
        monkeypatch.setattr(os, "pread", fails)
        with pytest.raises(StorageDamaged, match="read"):
            await stored(journal)


async def test_a_damaged_place_gives_up_no_segment_that_other_rows_refer_to(
    tmp_path: Path,
) -> None:
    for number, value in enumerate(("NULL", "999", "7", "0", "-1", str(2**62))):
        folder = tmp_path / str(number)
        async with opened(folder, large_bytes=0, replay_bytes=0) as journal:
            await fill(journal, 8)
            journal._writer.execute(f"UPDATE places SET segment = {value} WHERE first = 4")
        async with opened(folder, large_bytes=0, replay_bytes=0) as journal:
            journal.register(["reader"])
            for _ in range(2):
                journal.checkpoint("reader", 3)
                await journal.flush()
                journal._tidy()
                await _trim(journal)
                found = await stored(journal, 3)
                assert [group.first for group in found] == list(range(4, journal.head + 1))
                assert [group.first for group in found if group.damaged] == [4]
                await fill(journal, 1)
            journal.checkpoint("reader", journal.head)
            await journal.flush()
            journal._tidy()
            await _trim(journal)
            assert _files(folder) == []


async def test_a_number_is_never_given_to_another_segment(tmp_path: Path) -> None:
    settings = {"large_bytes": 0, "replay_bytes": 0, "max_bytes": _CAP}
    seen: set[str] = set()
    for _ in range(4):
        async with opened(tmp_path, **settings) as journal:
            journal.register(["reader"])
            for _ in range(3):
                await fill(journal, 3, size=MIB)
                new = {name.removeprefix("segment-") for name in _files(tmp_path)}
                assert not new & seen
                journal.checkpoint("reader", journal.head)
                await journal.flush()
                await _trim(journal)
                assert _files(tmp_path) == []
                seen |= new


async def test_a_number_that_a_row_names_is_not_given_again_though_the_file_is_missing(
    tmp_path: Path,
) -> None:
    settings = {"large_bytes": 0, "replay_bytes": 0, "max_bytes": _CAP}
    async with opened(tmp_path, **settings) as journal:
        await fill(journal, 8, size=MIB)
    for name in _files(tmp_path)[1:]:
        (tmp_path / name).unlink()
    async with opened(tmp_path, **settings) as journal:
        journal.register(["reader"])
        await fill(journal, 2, size=MIB)
        journal.checkpoint("reader", 6)
        await journal.flush()
        await _trim(journal)
        found = await stored(journal, 6)
        assert [(group.first, bool(group.damaged)) for group in found] == [
            *((7, True), (8, True)),
            *((9, False), (10, False)),
        ]


async def test_the_newest_that_is_missing_is_a_damaged_group_as_any_other(tmp_path: Path) -> None:
    async with opened(tmp_path, large_bytes=0) as journal:
        await fill(journal, 2)
        await journal.append([numbered(3, 5)])
        segment_path(tmp_path, 1).unlink()
        for after in range(2, 7):
            (group,) = await stored(journal, after)
            assert (group.first, group.last, bool(group.damaged)) == (3, 7, True)


async def test_segments_of_rows_that_were_deleted_before_a_crash_are_given_up_at_the_next_start(
    tmp_path: Path,
) -> None:
    settings = {"large_bytes": 0, "max_bytes": _CAP}
    async with opened(tmp_path, **settings) as journal:
        journal.register(["reader"])
        await fill(journal, 15, size=MIB)
        journal.checkpoint("reader", 15)
        await journal.flush()
        rows.delete(journal._writer, 15)
    async with opened(tmp_path, **settings) as journal:
        journal.register(["reader"])
        await fill(journal, 15, size=MIB)
        assert held(await stored(journal)) == right(16, 30)


async def test_what_is_used_is_the_same_after_a_restart(tmp_path: Path) -> None:
    settings = {"large_bytes": 0, "max_bytes": _CAP, "replay_bytes": 0}
    async with opened(tmp_path, **settings) as journal:
        journal.register(["reader"])
        await fill(journal, 8, size=MIB)
        journal.checkpoint("reader", 8)
        await journal.flush()
        await _trim(journal)
        # In a spare, which is larger.
        await fill(journal, 1)
        before = journal._segments.used
        assert 0 < before < MIB
    async with opened(tmp_path, **settings) as journal:
        assert 0 < journal._segments.used <= before


@pytest.mark.parametrize("count", ["NULL", "0", "2"])
async def test_the_newest_whose_count_is_damaged_is_told_with_all_its_numbers(
    tmp_path: Path, count: str
) -> None:
    async with opened(tmp_path, large_bytes=0) as journal:
        await fill(journal, 2)
        await journal.append([numbered(3, 5)])
        journal._writer.execute(f"UPDATE groups SET count = {count} WHERE first = 3")
        for after in range(2, 7):
            (group,) = await stored(journal, after)
            assert (group.first, group.last, bool(group.damaged)) == (3, 7, True)


# What fails when it is written


def _raising(error: int) -> Callable[..., Any]:
    def fails(*_: object) -> Any:
        raise OSError(error, os.strerror(error))

    return fails


def _full(*_: object) -> None:
    raise apsw.FullError("made by the test")


async def test_a_sync_that_failed_ends_it_and_nothing_refers_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, large_bytes=0) as journal:
        await fill(journal, 1)
        monkeypatch.setattr(segments, "_sync_data", _raising(errno.EIO))
        with pytest.raises(StorageDamaged, match="synced"):
            await fill(journal, 1)
        assert journal.head == 1
        assert held(await stored(journal)) == right(1, 1)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
async def test_a_write_that_failed_is_told_as_full_leaves_nothing_and_can_be_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    write = os.pwrite

    def half(file: int, content: bytes, at: int) -> int:
        if len(content) < MIB // 2:
            raise OSError(error, os.strerror(error))
        return write(file, content[: len(content) // 2], at)

    async with opened(tmp_path, large_bytes=0) as journal:
        await fill(journal, 1)
        before = segment_path(tmp_path, 1).stat().st_size
        with monkeypatch.context() as patched:
            patched.setattr(os, "pwrite", half)
            patched.setattr(rows, "insert", _full)
            for _ in range(3):
                with pytest.raises(StorageFull):
                    await fill(journal, 1, size=MIB)
                assert segment_path(tmp_path, 1).stat().st_size == before
            # Where the database has room it is taken.
            patched.undo()
            patched.setattr(os, "pwrite", half)
            await fill(journal, 1, size=MIB)
        await fill(journal, 1, size=MIB)
        assert [first for first, *_ in _places(journal)] == [1, 3]
        assert held(await stored(journal)) == right(1, 3)


async def test_a_commit_that_no_spare_has_room_for_takes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.pwrite

    def never_grows(file: int, content: bytes, at: int) -> int:
        if at + len(content) > os.fstat(file).st_size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, content, at)

    async with opened(tmp_path, large_bytes=0, replay_seconds=3600, max_bytes=_CAP) as journal:
        journal.register(["reader"])
        await fill(journal, 6, size=MIB)
        journal.checkpoint("reader", 6)
        await journal._in(journal._write_thread, journal._make_room)
        spares = {path.stat().st_ino for path in tmp_path.glob("spare-*")}
        with monkeypatch.context() as patched:
            patched.setattr(os, "pwrite", never_grows)
            patched.setattr(rows, "insert", _full)
            for _ in range(5):
                with pytest.raises(StorageFull):
                    await fill(journal, 1, size=4 * MIB)
        assert spares <= {path.stat().st_ino for path in tmp_path.glob("spare-*")}
        assert (_files(tmp_path), journal._segments.used) == ([], 0)
        await fill(journal, 2, size=MIB)
        assert held(await stored(journal, 6)) == right(7, 8)


async def test_spares_that_somebody_deletes_are_done_without(tmp_path: Path) -> None:
    async with opened(tmp_path, large_bytes=0, replay_seconds=3600, max_bytes=_CAP) as journal:
        journal.register(["reader"])
        await fill(journal, 6, size=MIB)
        journal.checkpoint("reader", 6)
        await journal._in(journal._write_thread, journal._make_room)
        for spare in tmp_path.glob("spare-*"):
            spare.unlink()
        await fill(journal, 6, size=MIB)
        journal.checkpoint("reader", 12)
        await journal._in(journal._write_thread, journal._make_room)
        for spare in tmp_path.glob("spare-*"):
            spare.unlink()
        await fill(journal, 1, size=MIB)
        journal.checkpoint("reader", 13)
        await journal.flush()
        await _trim(journal, everything=True)
        await fill(journal, 1, size=MIB)
        await _trim(journal)
        assert held(await stored(journal, 13)) == right(14, 14)


async def test_what_was_written_and_not_committed_is_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, large_bytes=0) as journal:
        await fill(journal, 1)
        with monkeypatch.context() as patched:
            patched.setattr(rows, "insert", _full)
            for _ in range(3):
                with pytest.raises(StorageFull):
                    await fill(journal, 1, size=MIB)
        await fill(journal, 1, size=MIB)
        assert [at for _, _, at, _ in _places(journal)] == [0, 4096]
        assert held(await stored(journal)) == right(1, 2)


async def test_files_of_other_names_are_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "segment-of-my-own"
    other.touch()
    async with opened(tmp_path, large_bytes=0) as journal:
        await fill(journal, 1)
        assert held(await stored(journal)) == right(1, 1)
    assert other.exists()


# Others


@pytest.mark.parametrize("following", [0, 2])
async def test_what_is_trimmed_while_it_is_read_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, following: int
) -> None:
    unpack = groups.unpack
    async with opened(tmp_path, large_bytes=0, replay_seconds=3600, max_bytes=_CAP) as journal:
        journal.register(["reader"])
        await fill(journal, 2, size=2 * MIB)
        journal.checkpoint("reader", 2)
        await journal.flush()

        def late(*given: Any) -> Group:
            monkeypatch.setattr(rows, "unpack", unpack)
            journal._make_room()
            # In the room of what was to be read.
            for number in range(3, 3 + following):
                journal._commit([numbered(number, size=2 * MIB)])
            return unpack(*given)

        monkeypatch.setattr(rows, "unpack", late)
        found = await stored(journal)
        assert not any(group.damaged for group in found)
        assert held(found) == right(3, 2 + following)


async def test_a_journal_without_segments_is_read_and_written_on(tmp_path: Path) -> None:
    async with opened(tmp_path, large_bytes=1 << 40) as journal:
        await fill(journal, 2, size=MIB)
    with closing(apsw.Connection(str(tmp_path / "journal.db"))) as connection:
        connection.execute("DROP TABLE places; UPDATE meta SET value = 1 WHERE name = 'format'")
    with pytest.raises(StorageUnusable, match="older version"), open_file(tmp_path):
        pass
    for head in (2, 4):
        async with opened(tmp_path) as journal:
            assert journal.head == head
            await fill(journal, 2, size=MIB)
            assert held(await stored(journal)) == right(1, head + 2)
