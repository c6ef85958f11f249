"""`journal.room`: a full disk is told, whether or not the journal can still be written."""

import asyncio
from pathlib import Path

import pytest

from bridge.core.framing import frame
from bridge.health import Health
from bridge.journal import open_journal, watch_disk
from bridge.journal.room import room_of
from bridge.metrics import Metrics
from bridge.model import Run
from bridge.settings import JournalSettings
from tests.support.small_disk import CannotMount, small_disk
from tests.support.waiting import during, until


async def test_a_full_disk_is_told_though_the_journal_lives_on_and_so_is_its_end(
    tmp_path: Path,
) -> None:
    health = Health()
    settings = JournalSettings(dir=tmp_path / "disk" / "journal", replay_seconds=3600)
    try:
        with small_disk(tmp_path / "disk", "tmpfs", 64) as disk:
            async with (
                open_journal(settings, Metrics()) as journal,
                during(watch_disk(settings.dir, health, every_seconds=0.001)),
            ):
                for seq in range(100):
                    await journal.append([Run("tcp/1", 5, 1, frame(b"%d" % seq + bytes(100_000)))])
                await until(lambda: health.ready)
                disk.fill()
                await until(lambda: not health.ready)
                state = health.parts["disk"]
                assert state.state == "storage_full"
                assert str(settings.dir) in state.cause
                # Its WAL was folded, and has room.
                await journal.append([Run("tcp/1", 5, 1, frame(b"one more"))])
                await asyncio.sleep(0.01)
                assert not health.ready
                disk.free()
                await until(lambda: health.ready)
    except CannotMount as reason:
        pytest.skip(f"NOT TESTED, no disk of its own: {reason}")


def test_there_is_room_in_an_ordinary_folder(tmp_path: Path) -> None:
    assert room_of(tmp_path) > 1_000_000
