"""The durable journal: the only meeting point of the stages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import apsw

from bridge import log
from bridge.journal.file import connect, locked, refuse
from bridge.journal.flight import open_flight
from bridge.journal.reserve import Reserve
from bridge.journal.room import watch_disk
from bridge.journal.sqlite import Journal
from bridge.journal.wal import set_damage_aside
from bridge.metrics import Metrics
from bridge.settings import JournalSettings

__all__ = ["Journal", "open_journal", "watch_disk"]

_log = log.get("journal")


@asynccontextmanager
async def open_journal(settings: JournalSettings, metrics: Metrics) -> AsyncIterator[Journal]:
    """Open the journal in `settings.dir`, making it where there is none, and hold its lock.

    Raises:
        AlreadyRunning: another process holds it.
        StorageUnusable, StorageDamaged: it cannot be opened, or is no journal.
    """
    path = settings.dir / "journal.db"
    with locked(settings.dir):
        cut_off = set_damage_aside(path)
        if cut_off:
            _log.error(
                "the journal's WAL is damaged, accepted events are cut off",
                transactions=cut_off,
                kept=f"{path}-wal.damaged",
                remedy="Check the disk, and fetch what is missing.",
            )
        reserve = Reserve(settings.dir / "reserve")
        writer, reader = connect(path)
        try:
            journal = Journal(settings, writer, reader, reserve, metrics)
        except apsw.Error as error:
            refuse(error)
        journal.cut_off = cut_off
        try:
            with open_flight(settings.dir, journal.epoch, journal.head, metrics) as journal.flight:
                yield journal
        finally:
            journal.close()
