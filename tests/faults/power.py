"""The power fails: what was not synced is gone, with journal and embedded server on that disk.

The disk is an ext4 file system in a file. Its shutdown ioctl drops everything that has not been
written, as a cut does, and lets nothing be written after it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.ground import Ground
from tests.faults.outages import checked_embedded, without_brokers
from tests.faults.tally import Tally
from tests.faults.victim import Victim

__all__ = ["cut"]

_IMAGE_MB = 256
_CUTS = 3
"""For each disk; the first of them in the first seconds of journal and stream."""

_EARLIEST, _LATEST = 0.05, 2.0
_FIRST_SECONDS = 5
_UMOUNT_SECONDS = 10
_SHUTDOWN = 0x8004587D
_DROP_ALL = struct.pack("I", 2)


async def cut(ground: Ground, tries: int, seed: int) -> Tally:
    """Cut the power `tries` times, three times for each journal."""
    total, firsts = Tally(), list[float]()
    for first in range(0, tries, _CUTS):
        victim = Victim(ground, "power", seed + first, replayed=True)
        without_brokers(victim)
        disk = _Disk(victim.bridge.folder)
        # A log on that disk would be gone with it.
        victim.bridge.log = disk.image.with_suffix(".log")
        with disk.mounted() as reason:
            if reason:
                return Tally(not_tried=reason)
            try:
                began = time.monotonic()
                await _one(victim, disk)
                firsts.append(time.monotonic() - began)
                for _ in range(min(_CUTS, tries - first) - 1):
                    await _one(victim, disk)
                await victim.start(ready=True)
                total.add(await checked_embedded(victim))
            finally:
                victim.bridge.kill()
        disk.image.unlink()
    early = sum(seconds <= _FIRST_SECONDS for seconds in firsts)
    total.notes.append(f"{early} cuts within {_FIRST_SECONDS} s of the first start")
    return total


async def _one(victim: Victim, disk: _Disk) -> None:
    bridge = victim.bridge
    await victim.start(ready=True)
    feed = asyncio.create_task(victim.feed.bursts(bridge.feed_port))
    await asyncio.sleep(victim.random.uniform(_EARLIEST, _LATEST))
    told = (await asyncio.to_thread(bridge.metrics)).accepted
    disk.cut()
    await asyncio.to_thread(bridge.kill)
    await feed
    await asyncio.to_thread(disk.mount_again)
    new = await asyncio.to_thread(victim.note)
    # What was told as accepted, and is not in the journal any more.
    victim.tally.lost += max(0, told - new)
    victim.tried()


class _Disk:
    def __init__(self, place: Path) -> None:
        self._place = place
        self.image = place.with_suffix(".ext4")

    @contextmanager
    def mounted(self) -> Iterator[str]:
        """Yield why there is no such disk on this machine, or nothing."""
        with self.image.open("wb") as file:
            file.truncate(_IMAGE_MB << 20)
        if shutil.which("mkfs.ext4") is None:
            yield "there is no mkfs.ext4"
            return
        subprocess.run(["mkfs.ext4", "-q", str(self.image)], check=True)
        try:
            self._mount()
        except subprocess.CalledProcessError as error:
            yield f"this user may not mount: {error.stderr.decode().strip()}"
            return
        try:
            yield ""
        finally:
            subprocess.run(["umount", "--lazy", str(self._place)], check=True)

    def _mount(self) -> None:
        command = ["mount", "-o", "loop", str(self.image), str(self._place)]
        subprocess.run(command, check=True, capture_output=True)

    def cut(self) -> None:
        """From now on nothing reaches the disk."""
        root = os.open(self._place, os.O_RDONLY)
        try:
            fcntl.ioctl(root, _SHUTDOWN, _DROP_ALL)
        finally:
            os.close(root)

    def mount_again(self) -> None:
        """Bring it back as the cut left it."""
        # The kernel ends the embedded server a moment after its bridge.
        deadline = time.monotonic() + _UMOUNT_SECONDS
        while subprocess.run(
            ["umount", str(self._place)], capture_output=True, check=False
        ).returncode:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self._place} is still in use")
            time.sleep(0.02)
        self._mount()
