"""A sync that fails for real when the WAL is folded into the file: SQLite by itself would go on.

`tests/unit/test_journal_disk.py` cannot show that: what its disk raises is told, whatever SQLite makes of it.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.core.framing import frame
from bridge.errors import StorageDamaged
from bridge.journal import open_journal
from bridge.metrics import Metrics
from bridge.model import Run
from bridge.settings import JournalSettings

_APPENDS = 40
"""Of 256 KB each: the WAL is folded more than once."""


async def _append(folder: Path, count: int) -> str:
    """Return what became of it."""
    async with open_journal(JournalSettings(dir=folder), Metrics()) as journal:
        for number in range(count):
            try:
                await journal.append([Run("tcp/1", 5, 1, frame(bytes(256 * 1024)))])
            except StorageDamaged as error:
                return f"{number} committed, then: {error}"
    return f"{count} committed"


@pytest.mark.skipif(not shutil.which("strace"), reason="NOT TESTED: strace is not there")
def test_a_sync_of_the_file_that_fails_ends_the_journal(tmp_path: Path) -> None:
    # Making the file syncs it too.
    assert asyncio.run(_append(tmp_path, 1)) == "1 committed"
    inject = "inject=fsync,fdatasync:error=EIO"
    traced = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", str(tmp_path / "journal.db")]
    again = [sys.executable, "-m", "tests.faults.test_folding", str(tmp_path)]
    ended = subprocess.run(
        [*traced, "-e", "trace=fsync,fdatasync", "-e", inject, *again],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if "strace:" in ended.stderr:
        pytest.skip(f"NOT TESTED, strace may not trace here: {ended.stderr.strip()}")
    assert "committed, then: the journal could not be synced" in ended.stdout, ended


if __name__ == "__main__":
    print(asyncio.run(_append(Path(sys.argv[1]), _APPENDS)))
