"""`journal.sqlite`: what was committed is there, whatever happened since."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import apsw
import pytest

from bridge.core.framing import frame
from bridge.errors import (
    AlreadyRunning,
    BridgeError,
    StorageDamaged,
    StorageFull,
    StorageUnusable,
)
from bridge.journal import Journal, open_journal
from bridge.metrics import Metrics
from bridge.model import Group, Run
from bridge.settings import JournalSettings
from tests.support.records import records
from tests.support.waiting import during

EVERYTHING = 1 << 40
MIB = 1024 * 1024


_given: dict[str, int] = {}


@pytest.fixture(autouse=True, params=["rows", "segments"])
def frames_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the frames are: as ever, or all in segments, as those of large commits."""
    where: str = request.param
    if where == "segments":
        monkeypatch.setitem(_given, "large_bytes", 0)
    return where


def opened(folder: Path, **settings: Any) -> AbstractAsyncContextManager[Journal]:
    return open_journal(JournalSettings(dir=folder, **{**_given, **settings}), Metrics())


def run_of(*payloads: bytes, peer: str = "tcp/1") -> Run:
    return Run(peer, 5, len(payloads), b"".join(map(frame, payloads)))


def numbered(first: int, count: int = 1, size: int = 0) -> Run:
    return run_of(*(b"%d" % seq + bytes(size) for seq in range(first, first + count)))


def held(groups: Iterable[Group]) -> list[tuple[int, bytes]]:
    return [(r.seq, r.payload.rstrip(b"\0")) for group in groups for r in records(group)]


def right(first: int, last: int) -> list[tuple[int, bytes]]:
    """What `numbered` records `first` to `last` look like when read."""
    return [(seq, b"%d" % seq) for seq in range(first, last + 1)]


async def fill(journal: Journal, count: int, *, size: int = 0) -> None:
    for _ in range(count):
        await journal.append([numbered(journal.head + 1, size=size)])


async def stored(journal: Journal, after: int = 0, most: int = EVERYTHING) -> list[Group]:
    """Read as a reader does that does not keep up: from the disk."""
    return await journal._in(journal._read_thread, journal._read, after, most)


# Writing and reading


async def test_what_was_appended_is_read_with_its_numbers_peers_and_times(tmp_path: Path) -> None:
    runs = [run_of(b"1", b"2", peer="tcp/9"), run_of(b"3", peer="udp/1")]
    async with opened(tmp_path) as journal:
        assert (journal.head, await journal.read(0, EVERYTHING)) == (0, [])
        assert await journal.append(runs) == journal.head == 3
        assert await journal.read(0, EVERYTHING) == [Group(1, 3, tuple(runs))]


async def test_reading_goes_on_after_any_record_and_stops_at_the_size_asked(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        for count in (1, 3, 2):
            await journal.append([numbered(journal.head + 1, count, size=1000)])
        firsts = {after: [g.first for g in await journal.read(after, 0)] for after in range(7)}
        assert firsts == {0: [1], 1: [2], 2: [2], 3: [2], 4: [5], 5: [5], 6: []}
        assert [g.first for g in await journal.read(0, 4100)] == [1, 2]
        assert held(await journal.read(0, EVERYTHING)) == right(1, 6)


async def test_whoever_keeps_up_reads_what_is_on_the_disk(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        for count in (1, 3, 2, 1, 5):
            runs = [numbered(journal.head + 1, count, size=1000), run_of(b"x", peer="udp/1")]
            await journal.append(runs)
        await journal.advance("tracker", 3, [numbered(journal.head + 1)], {})
        for after in range(journal.head + 1):
            for most in (0, 3000, EVERYTHING):
                hot = journal._hot.read(after, most)
                assert hot == await stored(journal, after, most) == await journal.read(after, most)


async def test_what_is_kept_for_those_who_keep_up_is_bounded(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await fill(journal, 60, size=100_000)
        assert journal._hot._bytes <= 4 * MIB
        assert journal._hot.read(0, EVERYTHING) == []
        assert held(await journal.read(0, EVERYTHING)) == right(1, 60)
        await fill(journal, 1, size=5 * MIB)
        assert journal._hot._bytes == 0
        assert held(await journal.read(60, EVERYTHING)) == right(61, 61)


async def test_a_commit_of_which_nobody_was_told_leaves_no_hole(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await fill(journal, 2)
        journal._commit([numbered(3)])
        await fill(journal, 1)
        await journal.append([numbered(5)])
        assert held(await journal.read(0, EVERYTHING)) == [*right(1, 3), (4, b"3"), (5, b"5")]


async def test_a_large_commit_is_several_groups(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        await journal.append([numbered(seq, size=100_000) for seq in range(1, 11)])
        groups = await journal.read(0, EVERYTHING)
        assert len(groups) == 4
        assert held(groups) == right(1, 10)


async def test_waiting_ends_with_the_next_record_and_not_before(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        waiting = asyncio.create_task(journal.wait(1))
        await fill(journal, 1)
        await asyncio.sleep(0)
        assert not waiting.done()
        await fill(journal, 1)
        await asyncio.wait_for(waiting, 1)


async def test_cancelled_appends_are_committed_all_the_same(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        appending = [asyncio.create_task(journal.append([numbered(seq)])) for seq in range(1, 6)]
        await asyncio.sleep(0)
        for task in appending:
            task.cancel()
        assert all(isinstance(e, asyncio.CancelledError) for e in await _ends(appending))
        assert await journal.append([numbered(6)]) == 6
        assert held(await journal.read(0, EVERYTHING)) == right(1, 6)


async def _ends(tasks: Iterable[asyncio.Task[int]]) -> list[int | BaseException]:
    return await asyncio.gather(*tasks, return_exceptions=True)


# Opening anew


async def test_records_epoch_checkpoints_and_state_survive_reopening(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        epoch = journal.epoch
        journal.register(["kafka", "tracker"])
        await fill(journal, 3)
        journal.checkpoint("kafka", 2)
        await journal.advance("tracker", 3, [numbered(4)], {"b": b"state", "a": b"", "c": b"gone"})
        await journal.advance("tracker", 3, [], {"c": None, "d": None})
    async with opened(tmp_path) as journal:
        assert (journal.head, journal.epoch) == (4, epoch)
        assert held(await journal.read(0, EVERYTHING)) == right(1, 4)
        assert (journal.position("kafka"), journal.position("tracker")) == (2, 3)
        assert journal.items("tracker") == [("a", b""), ("b", b"state")]
        assert (journal.item("tracker", "b"), journal.item("tracker", "c")) == (b"state", None)
        assert journal.items("kafka") == []
        assert journal.position("new") == 0


async def test_two_journals_have_epochs_of_their_own(tmp_path: Path) -> None:
    async with opened(tmp_path / "one") as one, opened(tmp_path / "other") as other:
        assert one.epoch != other.epoch


async def test_checkpoints_become_durable_by_a_commit_or_a_flush_and_not_alone(
    tmp_path: Path,
) -> None:
    async def durable() -> dict[str, int]:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(tmp_path / "journal", copy)
        async with opened(copy) as other:
            return {name: other.position(name) for name in ("a", "b")}

    async with opened(tmp_path / "journal") as journal:
        journal.register(["a", "b"])
        await fill(journal, 3)
        journal.checkpoint("a", 1)
        assert await durable() == {"a": 0, "b": 0}
        await fill(journal, 1)
        assert await durable() == {"a": 1, "b": 0}
        journal.checkpoint("b", 3)
        await journal.flush()
        assert await durable() == {"a": 1, "b": 3}


async def test_derived_records_state_and_checkpoint_are_one_transaction(tmp_path: Path) -> None:
    async with opened(tmp_path / "journal") as journal:
        journal.register(["tracker"])
        await fill(journal, 2)
        await journal.advance("tracker", 1, [], {"a": b"one"})
        journal._writer.set_authorizer(_no_state)
        with pytest.raises(BridgeError):
            await journal.advance("tracker", 2, [numbered(3)], {"a": b"two", "b": b"two"})
        journal._writer.set_authorizer(None)
        assert (journal.head, journal.position("tracker")) == (2, 1)
        assert journal.items("tracker") == [("a", b"one")]
        await fill(journal, 1)
    async with opened(tmp_path / "journal") as journal:
        assert held(await journal.read(0, EVERYTHING)) == right(1, 3)
        assert (journal.position("tracker"), journal.items("tracker")) == (1, [("a", b"one")])


def _no_state(action: int, table: str | None, *others: str | None) -> int:
    writes = action in {apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE}
    return apsw.SQLITE_DENY if writes and table == "items" else apsw.SQLITE_OK


# Trimming


async def first_kept(journal: Journal) -> int:
    groups = await stored(journal, most=0)
    return groups[0].first if groups else journal.head + 1


async def trimmed(journal: Journal) -> int:
    await journal.flush()
    while await journal._in(journal._write_thread, journal._trim):
        pass
    return await first_kept(journal)


async def test_trimming_stays_behind_the_slowest_reader(tmp_path: Path) -> None:
    async with opened(tmp_path, replay_seconds=0) as journal:
        journal.register(["a", "b"])
        await fill(journal, 10)
        await asyncio.sleep(0.01)
        for a, b, kept in [(10, 0, 1), (10, 4, 5), (10, 10, 11)]:
            journal.checkpoint("a", a)
            journal.checkpoint("b", b)
            assert await trimmed(journal) == kept
        assert journal.head == 10
        await fill(journal, 1)
        assert held(await stored(journal, 9)) == right(11, 11)


async def test_the_numbers_go_on_after_all_was_trimmed_and_reopened(tmp_path: Path) -> None:
    async with opened(tmp_path, replay_bytes=0) as journal:
        journal.register(["a"])
        await fill(journal, 200)
        journal.checkpoint("a", 200)
        assert await trimmed(journal) == 201
    async with opened(tmp_path) as journal:
        assert journal.head == 200
        assert await journal.append([numbered(201)]) == 201


async def test_a_reader_that_is_gone_holds_nothing_back_and_a_new_one_begins_at_the_oldest(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path, replay_bytes=0) as journal:
        journal.register(["gone", "a"])
        await fill(journal, 10)
        journal.checkpoint("a", 7)
        assert await trimmed(journal) == 1
    async with opened(tmp_path, replay_bytes=0) as journal:
        journal.register(["a"])
        assert await trimmed(journal) == 8
        journal.register(["a", "new"])
        assert journal.position("new") == 7
        journal.checkpoint("a", 10)
        assert await trimmed(journal) == 8


async def test_delivered_records_stay_for_the_replay_horizon(tmp_path: Path) -> None:
    async with opened(tmp_path, replay_seconds=3600) as journal:
        journal.register(["a"])
        await fill(journal, 5)
        journal.checkpoint("a", 5)
        assert await trimmed(journal) == 1


async def test_delivered_records_beyond_the_replay_size_go_before_the_horizon(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path, replay_seconds=3600, replay_bytes=2 * MIB) as journal:
        journal.register(["a"])
        await fill(journal, 80, size=50_000)
        journal.checkpoint("a", 60)
        assert await trimmed(journal) == 61
        assert held(await journal.read(60, EVERYTHING)) == right(61, 80)


async def test_the_file_gives_back_what_was_trimmed(tmp_path: Path) -> None:
    async with opened(tmp_path, replay_bytes=0) as journal:
        journal.register(["a"])
        await fill(journal, 100, size=100_000)
        journal.checkpoint("a", journal.head)
        await trimmed(journal)
    assert (tmp_path / "journal.db").stat().st_size < 2 * MIB


async def test_tending_trims_and_writes_checkpoints_down(tmp_path: Path) -> None:
    async with opened(tmp_path, replay_bytes=0) as journal:
        journal.register(["a"])
        await fill(journal, 10)
        async with during(journal.tend(0.001)):
            journal.checkpoint("a", 10)
            async with asyncio.timeout(5):
                while await first_kept(journal) != 11:
                    await asyncio.sleep(0.001)
    async with opened(tmp_path) as journal:
        assert journal.position("a") == 10


async def test_at_the_cap_nothing_is_deleted_that_was_not_delivered(tmp_path: Path) -> None:
    async with opened(tmp_path, max_bytes=16 * MIB, replay_seconds=3600) as journal:
        journal.register(["a"])
        with pytest.raises(StorageFull):
            await fill(journal, 30, size=MIB)
        full = journal.head
        assert 12 <= full <= 16
        with pytest.raises(StorageFull):
            await journal.append([numbered(full + 1)])
        assert (journal.head, await first_kept(journal)) == (full, 1)
        # What is derived has room kept for it.
        await journal.advance("a", 1, [numbered(full + 1)], {"state": b"state"})
        journal.checkpoint("a", 8)
        await journal.flush()
        await journal.append([numbered(full + 2)])
        assert await first_kept(journal) == 9
        assert held(await journal.read(8, EVERYTHING)) == right(9, full + 2)


# Damage


async def test_a_second_instance_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    async with opened(tmp_path):
        with pytest.raises(AlreadyRunning):
            async with opened(tmp_path):
                pass
        script = (
            "import asyncio, sys, pathlib; from tests.unit import test_journal as t\n"
            "async def main():\n"
            "    async with t.opened(pathlib.Path(sys.argv[1])): pass\n"
            "try: asyncio.run(main())\n"
            "except t.AlreadyRunning as error: sys.exit(error.exit_code)\n"
        )
        other = subprocess.run([sys.executable, "-c", script, tmp_path], timeout=20, check=False)
        assert other.returncode == 75
    async with opened(tmp_path) as journal:
        assert journal.head == 0


async def test_a_folder_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "taken" / "journal.db").mkdir(parents=True)
    for place in ("file", "file/below", "taken"):
        with pytest.raises(StorageUnusable, match=place):
            async with opened(tmp_path / place):
                pass


async def test_a_file_that_is_no_journal_is_refused_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "journal.db"
    file.write_bytes(b"not a database, but something of the operator's" * 1000)
    with pytest.raises(StorageDamaged):
        async with opened(tmp_path):
            pass
    assert file.read_bytes().startswith(b"not a database")


async def test_a_journal_of_another_format_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        journal._writer.execute("UPDATE meta SET value = 99 WHERE name = 'format'")
    with pytest.raises(StorageUnusable, match="format 99"):
        async with opened(tmp_path):
            pass


_TURNED = "CAST(substr(frames, 1, 9) || X'21' || substr(frames, 11) AS BLOB)"
_CHANGES = {
    "head gone": "UPDATE groups SET head = X'' WHERE first = 4",
    "head longer": "UPDATE groups SET head = CAST(head || X'00' AS BLOB) WHERE first = 4",
    "checksum": "UPDATE groups SET checksum = checksum + 1 WHERE first = 4",
}
_FRAMES = {
    ("rows", "turned"): f"UPDATE groups SET frames = {_TURNED} WHERE first = 4",
    ("rows", "shorter"): (
        "UPDATE groups SET frames = CAST(substr(frames, 1, length(frames) - 1) AS BLOB)"
        " WHERE first = 4"
    ),
    ("rows", "gone"): "UPDATE groups SET frames = X'' WHERE first = 4",
    # One that another row has, of the same size.
    ("segments", "turned"): "UPDATE places SET at = 0 WHERE first = 4",
    ("segments", "shorter"): "UPDATE places SET size = size - 1 WHERE first = 4",
    ("segments", "gone"): "DELETE FROM places WHERE first = 4",
}


@pytest.mark.parametrize("change", [*_CHANGES, "turned", "shorter", "gone"])
async def test_a_damaged_group_is_told_and_its_neighbours_are_read(
    tmp_path: Path, change: str, frames_in: str
) -> None:
    async with opened(tmp_path) as journal:
        for _ in range(3):
            await journal.append([numbered(journal.head + 1, 3, size=5)])
        journal._writer.execute(_CHANGES.get(change) or _FRAMES[frames_in, change])
        one, two, three = await stored(journal)
        assert (two.first, two.last, two.runs) == (4, 6, ())
        assert two.damaged
        assert held([one, three]) == right(1, 3) + right(7, 9)
        assert (await stored(journal, 5))[0].damaged


@pytest.mark.parametrize("count", [0, 1, 2, 4, 7, 100])
async def test_a_damaged_count_hides_no_good_record(tmp_path: Path, count: int) -> None:
    async with opened(tmp_path) as journal:
        for _ in range(3):
            await journal.append([numbered(journal.head + 1, 3)])
        journal._writer.execute("UPDATE groups SET count = ? WHERE first = 4", (count,))
        after, found, damaged = 0, [], 0
        # As a lane reads: on from the last record of the last group.
        while after < journal.head and (groups := await stored(journal, after, 0)):
            found += held(groups)
            damaged += bool(groups[-1].damaged)
            after = groups[-1].last
        assert damaged == 1
        assert found == right(1, 3) + right(7, 9)


async def test_a_page_damaged_on_the_disk_never_gives_a_wrong_payload(
    tmp_path: Path, frames_in: str
) -> None:
    async with opened(tmp_path) as journal:
        await fill(journal, 6, size=100_000)
    (file,) = tmp_path.glob("segment-*" if frames_in == "segments" else "journal.db")
    content = bytearray(file.read_bytes())
    payload = content.index(bytes(10_000), len(content) // 2) + 5_000
    content[payload] = 0xFF
    file.write_bytes(content)
    async with opened(tmp_path) as journal:
        groups = await journal.read(0, EVERYTHING)
        bad = [group for group in groups if group.damaged]
        assert len(bad) == 1
        expected = [one for one in right(1, 6) if one[0] != bad[0].first]
        assert held(groups) == expected


@pytest.mark.parametrize("keep", [0, 0.01, 0.3, 0.5, 0.77, 0.9, 0.999, 1])
async def test_a_torn_log_leaves_a_prefix_and_is_written_on(tmp_path: Path, keep: float) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    async with opened(whole) as journal:
        journal.register(["a"])
        for seq in range(1, 21):
            journal.checkpoint("a", seq - 1)
            await journal.append([numbered(seq, size=3000)])
        shutil.copytree(whole, torn)
    log = torn / "journal.db-wal"
    os.truncate(log, int(log.stat().st_size * keep))
    (torn / "journal.db-shm").unlink()
    async with opened(torn) as journal:
        head = journal.head
        assert held(await journal.read(0, EVERYTHING)) == right(1, head)
        assert journal.position("a") <= head
        assert head == 20 if keep == 1 else head < 20
        await fill(journal, 2)
        assert held(await journal.read(0, EVERYTHING)) == right(1, head + 2)


@pytest.mark.parametrize("count", [-1, 0, 2, 2**40])
async def test_a_damaged_last_row_ends_where_the_readers_know_that_it_does(
    tmp_path: Path, count: int
) -> None:
    async with opened(tmp_path) as journal:
        journal.register(["slow", "fast"])
        await journal.append([numbered(1, 5)])
        await journal.append([numbered(6, 5)])
        journal.checkpoint("fast", 10)
        await journal.flush()
        journal._writer.execute("UPDATE groups SET count = ? WHERE first = 6", (count,))
    async with opened(tmp_path) as journal:
        journal.register(["slow", "fast"])
        assert journal.head == 10
        (whole,) = await journal.read(0, 0)
        (damaged,) = await journal.read(whole.last, 0)
        assert (damaged.first, damaged.last, bool(damaged.damaged)) == (6, 10, True)
        assert await journal.append([numbered(11)]) == 11
        assert held(await journal.read(10, EVERYTHING)) == right(11, 11)


async def test_an_advance_whose_waiter_is_cancelled_is_not_undone_by_the_next_commit(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as journal:
        journal.register(["tracker"])
        await fill(journal, 3)
        advancing = asyncio.create_task(journal.advance("tracker", 3, [numbered(4)], {"a": b"b"}))
        await asyncio.sleep(0)
        advancing.cancel()
        (end,) = await asyncio.gather(advancing, return_exceptions=True)
        assert isinstance(end, asyncio.CancelledError)
        assert journal.head == 4
        await fill(journal, 1)
        await journal.flush()
    async with opened(tmp_path) as journal:
        assert (journal.position("tracker"), journal.items("tracker")) == (3, [("a", b"b")])
        assert [seq for seq, _ in held(await journal.read(0, EVERYTHING))] == [1, 2, 3, 4, 5]


async def test_with_no_room_left_what_was_delivered_is_freed(tmp_path: Path) -> None:
    async with opened(tmp_path, max_bytes=16 * MIB, replay_seconds=3600) as journal:
        journal.register(["a"])
        await journal.append([numbered(1, 1, 20 * MIB)])
        with pytest.raises(StorageFull):
            await journal.append([numbered(2)])
        journal.checkpoint("a", 1)
        await journal.flush()
        assert await journal.append([numbered(2)]) == 2
