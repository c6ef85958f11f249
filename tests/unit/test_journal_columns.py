"""Damage may make any column NULL: then a row is damaged like any other, and never a bug."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import pytest

from bridge.core.framing import frame
from bridge.errors import StorageDamaged, StorageUnusable
from bridge.journal import open_journal
from bridge.journal.file import PAGE_BYTES
from bridge.metrics import Metrics
from bridge.model import Run
from bridge.settings import JournalSettings

_ROWS = 3


def _opened(folder: Path) -> Any:
    return open_journal(JournalSettings(dir=folder), Metrics())


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    async with _opened(tmp_path) as journal:
        journal.register(["nats"])
        for number in range(_ROWS):
            await journal.append([Run("tcp/1", 5, 1, frame(b"%d" % number))])
        journal.checkpoint("nats", 1)
        await journal.flush()
    return tmp_path


def _change(folder: Path, sql: str) -> None:
    connection = apsw.Connection(str(folder / "journal.db"))
    connection.execute(sql)
    connection.close()


@pytest.mark.parametrize("column", ["count", "checksum", "head", "frames"])
@pytest.mark.parametrize("row", range(1, _ROWS + 1))
async def test_a_row_without_a_column_is_a_damaged_group(
    folder: Path, column: str, row: int
) -> None:
    _change(folder, f"UPDATE groups SET {column} = NULL WHERE first = {row}")
    async with _opened(folder) as journal:
        assert journal.head == _ROWS
        groups = await journal.read(0, 1 << 20)
    assert [bool(group.damaged) for group in groups] == [
        number == row for number in range(1, _ROWS + 1)
    ]


async def test_a_checkpoint_without_its_number_is_not_trusted(folder: Path) -> None:
    _change(folder, "UPDATE readers SET seq = NULL")
    with pytest.raises(StorageDamaged):
        async with _opened(folder):
            pass


@pytest.mark.parametrize("page", range(1, 9))
async def test_a_page_of_garbage_is_told_as_storage(folder: Path, page: int) -> None:
    path = folder / "journal.db"
    assert path.stat().st_size >= 5 * PAGE_BYTES
    with path.open("r+b") as file:
        file.seek(page * PAGE_BYTES)
        file.write(b"\xee" * 200)
    try:
        async with _opened(folder) as journal:
            journal.register(["nats", "kafka"])
            await journal.read(0, 1 << 20)
    except (StorageDamaged, StorageUnusable):
        return
