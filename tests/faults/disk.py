"""The journal's disk is full for a while and then is not: a small tmpfs of its own, with ballast."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.faults.ground import Ground
from tests.faults.outages import fed
from tests.faults.tally import Tally
from tests.faults.victim import Victim
from tests.support.bridge_process import BridgeProcess

__all__ = ["full"]

_SECONDS = (3, 60, 10)
_PER_SECOND = 300
_MOUNT_MB = 96
_TOLD_SECONDS = 1
_PATIENCE_SECONDS = 20
"""So long the feed is kept waiting; then its connections are closed, which is to be alerted."""

_GIVEN_UP = "tmpfs could not be mounted: full by the size that files may grow to"


async def full(ground: Ground, tries: int, seed: int) -> Tally:
    """Fill the disk for 3, 60 and 10 s, one after the other, as often as told."""
    victim = Victim(ground, "disk", seed)
    tally = victim.tally
    alerts = 0
    with _disk(victim) as (fill, free):
        async with fed(victim, _PER_SECOND, comes_back=True):
            for number in range(tries):
                seconds = _SECONDS[number % len(_SECONDS)]
                fill()
                await _told(victim)
                await asyncio.sleep(seconds)
                if victim.bridge.get("/healthz")[0] != 200:
                    tally.broken.append("/healthz failed while the disk was full")
                alerts += seconds > _PATIENCE_SECONDS
                free()
                await victim.recovered(time.monotonic())
                tally.tries += 1
        total = await victim.check()
    alerted = sum(record.kind == "gap-alert" for record in victim.accepted)
    if alerted != alerts:
        total.broken.append(f"{alerted} alerts tell of {alerts} times that the feed was closed")
    return total


async def _told(victim: Victim) -> None:
    """Return when `/readyz` says why it is not ready."""
    bridge, began = victim.bridge, time.monotonic()

    def told() -> bool:
        status, body = bridge.get("/readyz")
        return status == 503 and '"state": "storage_full"' in body

    await asyncio.to_thread(bridge.wait_for, told, 20, "tell that the disk is full")
    seconds = time.monotonic() - began
    victim.tally.notes.append(f"a full disk was told after {seconds:.2f} s")
    if seconds > _TOLD_SECONDS:
        victim.tally.late.append(f"a full disk was told after {seconds:.1f} s")


@contextmanager
def _disk(victim: Victim) -> Iterator[tuple[Callable[[], None], Callable[[], None]]]:
    """Yield how to fill and how to free the disk of the victim's journal."""
    folder = victim.bridge.folder
    size = f"size={_MOUNT_MB}m"
    mount = ["mount", "-t", "tmpfs", "-o", size, "faults", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        victim.tally.notes.append(_GIVEN_UP)
        yield _by_limit(victim.bridge)
        return
    try:
        ballast = folder / "ballast"

        def fill() -> None:
            with ballast.open("wb", buffering=0) as file:
                while True:
                    try:
                        file.write(bytes(4096))
                    except OSError:
                        return

        yield fill, ballast.unlink
    finally:
        victim.bridge.kill()
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _by_limit(bridge: BridgeProcess) -> tuple[Callable[[], None], Callable[[], None]]:
    def let(size: int) -> None:
        assert bridge.pid is not None
        resource.prlimit(bridge.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    return lambda: let(4096), lambda: let(resource.RLIM_INFINITY)
