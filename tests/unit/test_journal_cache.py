"""`journal.cache`: what every reader has passed leaves the page cache, and nothing else does."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
from pathlib import Path

import pytest

from bridge.journal.file import PAGE_BYTES
from tests.unit.test_journal import EVERYTHING, MIB, fill, held, opened, right

if sys.platform != "linux":
    pytest.skip("WHAT IS IN THE PAGE CACHE is asked of Linux only", allow_module_level=True)

_RECORDS = 100


def in_memory(path: Path) -> int:
    """Return how many of the file's bytes are in the page cache, as mincore(2) tells."""
    with (
        path.open("r+b") as file,
        mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED) as mapped,
    ):
        pages = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
        start = ctypes.c_char.from_buffer(mapped)
        address, size = ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(len(mapped))
        assert ctypes.CDLL(None).mincore(address, size, pages) == 0
        del start
    return mmap.PAGESIZE * sum(each & 1 for each in pages)


def needs_a_page_cache(folder: Path) -> None:
    """Skip where files are kept in memory alone, as in a tmpfs: nothing can leave it there."""
    path = folder / "probe"
    with path.open("wb") as file:
        file.write(bytes(MIB))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, MIB, os.POSIX_FADV_DONTNEED)
    if in_memory(path) > MIB // 2:
        pytest.skip(f"NOT TESTED: files in {folder} never leave memory")


@pytest.mark.parametrize(("files", "large_bytes"), [("journal.db", 1 << 40), ("segment-*", 0)])
async def test_what_every_reader_has_passed_leaves_memory_and_is_read_all_the_same(
    tmp_path: Path, files: str, large_bytes: int
) -> None:
    needs_a_page_cache(tmp_path)

    def held_in_memory() -> int:
        return sum(map(in_memory, tmp_path.glob(files)))

    async with opened(tmp_path, replay_seconds=3600, large_bytes=large_bytes) as journal:
        journal.register(["fast", "slow"])
        for _ in range(_RECORDS):
            await fill(journal, 1, size=MIB)
            journal._tidy()
        whole = held_in_memory()
        assert whole > 0.9 * sum(path.stat().st_size for path in tmp_path.glob(files))

        journal.checkpoint("fast", _RECORDS)
        await journal.flush()
        journal._tidy()
        assert held_in_memory() == whole

        journal.checkpoint("slow", _RECORDS // 2)
        await journal.flush()
        journal._tidy()
        assert 0.4 * whole < held_in_memory() < 0.6 * whole

        journal.checkpoint("slow", _RECORDS)
        await journal.flush()
        journal._tidy()
        # What is in the WAL alone is none of the file's, and what is noted last is not yet passed.
        assert held_in_memory() < 0.2 * whole
        found = await journal._in(journal._read_thread, journal._read, 0, EVERYTHING)
        assert held(found) == right(1, _RECORDS)


@pytest.mark.parametrize(("files", "large_bytes"), [("journal.db", 1 << 40), ("segment-*", 0)])
async def test_what_was_there_at_the_start_is_left_alone(
    tmp_path: Path, files: str, large_bytes: int
) -> None:
    async with opened(tmp_path, replay_seconds=3600, large_bytes=large_bytes) as journal:
        journal.register(["reader"])
        await fill(journal, 20, size=MIB)
    before = sum(map(in_memory, tmp_path.glob(files)))
    assert before > 10 * MIB
    async with opened(tmp_path, replay_seconds=3600) as journal:
        journal.register(["reader"])
        journal.checkpoint("reader", journal.head)
        await journal.flush()
        journal._tidy()
        assert sum(map(in_memory, tmp_path.glob(files))) >= before - PAGE_BYTES


async def test_a_segment_of_which_nothing_is_passed_stays_in_memory(tmp_path: Path) -> None:
    needs_a_page_cache(tmp_path)
    async with opened(tmp_path, large_bytes=0, replay_seconds=3600) as journal:
        journal.register(["reader"])
        await fill(journal, 20, size=MIB)
        first, second = sorted(tmp_path.glob("segment-*"))
        journal.checkpoint("reader", 17)
        await journal.flush()
        journal._tidy()
        assert in_memory(first) == 0
        assert in_memory(second) > 0.9 * second.stat().st_size


async def test_a_file_system_that_takes_no_advice_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "posix_fadvise", refused)
    async with opened(tmp_path) as journal:
        journal.register(["reader"])
        for _ in range(20):
            await fill(journal, 1, size=MIB)
            journal._tidy()
        journal.checkpoint("reader", journal.head)
        await journal.flush()
        journal._tidy()
        await fill(journal, 1)


async def test_notes_do_not_become_more_than_the_file_has_steps(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        journal.register(["away"])
        for _ in range(200):
            await fill(journal, 1, size=100)
            journal._tidy()
        assert len(journal._cache._notes) <= 1
