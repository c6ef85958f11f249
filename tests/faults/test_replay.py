"""The suite can tell: a tracker whose state or records are not those of its journal is noticed."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from bridge.core.heights import Bounds
from bridge.journal import open_journal
from bridge.metrics import Metrics
from bridge.model import Run
from bridge.settings import JournalSettings
from bridge.stages.track import READER, Tracker
from tests.faults.chain_feed import ChainFeed
from tests.faults.records import OWN_PEER, Records
from tests.faults.replay import Replay
from tests.support.waiting import during, until

_BATCH = 25
_PARTS = (900, 300)
"""Events before and after the tracker ended once."""
_BOUNDS = Bounds(grace=100_000)


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """A journal whose tracker ended in the middle, with what it had read and not committed."""
    feed = ChainFeed(1)
    async with open_journal(JournalSettings(dir=tmp_path), Metrics()) as journal:
        journal.register([READER])
        for events in _PARTS:
            tracker = Tracker(journal, Metrics(), network="main", bounds=_BOUNDS, tick_seconds=0.01)
            async with during(tracker.run()):
                for _ in range(events // _BATCH):
                    frames = b"".join(feed.frame() for _ in range(_BATCH))
                    await journal.append([Run("tcp/1", 1_700_000_000_000_000_000, _BATCH, frames)])
                    await asyncio.sleep(0.002)
                least = journal.position(READER) + 1
                await until(lambda: journal.position(READER) >= least, 30)  # noqa: B023
    return tmp_path


async def _differences(folder: Path) -> list[str]:
    replay = Replay(folder)
    replay.look()
    return await replay.differences()


async def test_a_tracker_that_ended_is_as_one_that_never_did(folder: Path) -> None:
    derived = [each for each in Records(folder).stored() if not each.is_of_feed]
    assert {each.kind for each in derived} >= {"block-receipt", "gap-alert", "entry-commit"}
    assert not await _differences(folder)


_LAST_OWN = (
    "SELECT max(first) FROM groups, readers"
    " WHERE first + count - 1 < seq AND instr(head, CAST('bridge' AS BLOB))"
)
"""Not the group at the position itself: without that, a replay would never come there."""
_LAST_FED = (
    "SELECT max(first) FROM groups WHERE first <= seq AND NOT instr(head, CAST('bridge' AS BLOB))"
)
"""A position stands at a group's end: one within a group is none that a replay could reach."""


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        (f"DELETE FROM groups WHERE first = ({_LAST_OWN})", "are not those of the replay"),
        (f"UPDATE readers SET seq = ({_LAST_FED}) - 1", "not that of the replay"),
        ("DELETE FROM items WHERE name = 'heights/holes'", "heights/holes"),
        ("UPDATE items SET value = x'00' WHERE name LIKE 'receipt/heights/%'", "receipt/heights"),
        ("DELETE FROM items WHERE name LIKE 'heights/gap/%'", "heights/gap/"),
    ],
)
async def test_another_state_is_noticed(folder: Path, sql: str, said: str) -> None:
    with closing(apsw.Connection(str(folder / "journal.db"))) as connection:
        connection.execute(sql)
        assert connection.changes()
    assert said in " ".join(await _differences(folder))


async def test_what_was_said_twice_is_noticed(folder: Path) -> None:
    async with open_journal(JournalSettings(dir=folder), Metrics()) as journal:
        runs = [run for group in await journal.read(0, 1 << 30) for run in group.runs]
        await journal.append([next(run for run in runs if run.peer == OWN_PEER)])
    assert "twice in the journal" in " ".join(await _differences(folder))
