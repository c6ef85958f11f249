"""The durable journal: the only meeting point of the stages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bridge.journal.file import connect, locked
from bridge.journal.sqlite import Journal
from bridge.metrics import Metrics
from bridge.settings import JournalSettings

__all__ = ["Journal", "open_journal"]


@asynccontextmanager
async def open_journal(settings: JournalSettings, metrics: Metrics) -> AsyncIterator[Journal]:
    """Open the journal in `settings.dir`, making it where there is none, and hold its lock.

    Raises:
        AlreadyRunning: another process holds it.
        StorageUnusable, StorageDamaged: it cannot be opened, or is no journal.
    """
    with locked(settings.dir):
        writer, reader = connect(settings.dir / "journal.db")
        journal = Journal(settings, writer, reader, metrics)
        try:
            yield journal
        finally:
            journal.close()
