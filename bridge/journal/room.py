"""Tells that the journal's disk is full, though the journal may live on in the room of its own files.

That can last for long: what was delivered is deleted, and what comes takes its place. Whoever is to
free the disk should know before it ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import NoReturn

from bridge import log
from bridge.errors import StorageFull
from bridge.health import Health

__all__ = ["is_short", "room_of", "watch_disk"]

_FULL_BYTES = 64 * 1024
"""With less room than this no write of the journal that needs some is sure of it."""

_SHORT_BYTES = 8 * 1024 * 1024
"""With less room than this what the journal holds for itself is not given to others."""

_log = log.get("journal")


def room_of(folder: Path) -> int:
    """Return how many bytes anybody may still write on the disk of `folder`.

    One that does not tell its size is taken to have room.
    """
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize if disk.f_blocks else sys.maxsize


def is_short(folder: Path) -> bool:
    """Return whether the disk of `folder` is as good as full."""
    return room_of(folder) < _SHORT_BYTES


async def watch_disk(folder: Path, health: Health, every_seconds: float = 0.25) -> NoReturn:
    """Tell `health` until cancelled."""
    full = StorageFull(f"the disk of {folder} is full; the journal lives on what its files hold")
    health.told("disk", "ready", ready=True)
    while True:
        is_full = room_of(folder) < _FULL_BYTES
        if is_full and health.told("disk", full.code, cause=str(full)):
            _log.error("the journal's disk is full", folder=str(folder), remedy=full.remedy)
        elif not is_full and health.told("disk", "ready", ready=True):
            _log.info("the journal's disk has room", folder=str(folder))
        await asyncio.sleep(every_seconds)
