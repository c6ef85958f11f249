"""The journal's disk is full for a while and then is not: a small tmpfs of its own, with ballast."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bridge.pb.bridge.v1.gap_alert_pb2 import GapAlert
from tests.faults.chain_feed import ChainFeed
from tests.faults.ground import Ground
from tests.faults.outages import fed
from tests.faults.tally import Tally
from tests.faults.victim import Victim
from tests.support.bridge_process import BridgeProcess

__all__ = ["full", "limited"]

_SECONDS = (3, 60, 10)
_PER_SECOND = 300
_MOUNT_MB = 96
_TOLD_SECONDS = 1
_GRACE_SECONDS = 1
_GAP_SECONDS = 3
"""A gap is told when its grace is over, and some blocks have come."""

_GIVEN_UP = "tmpfs could not be mounted: full by the size that files may grow to"


async def full(ground: Ground, tries: int, seed: int) -> Tally:
    """Fill the disk for 3, 60 and 10 s, one after the other, as often as told."""
    victim = _victim(ground, "disk", seed)
    with _disk(victim) as (fill, free):
        return await _filled(victim, tries, fill, free)


async def limited(ground: Ground, tries: int, seed: int) -> Tally:
    """Let no file of the bridge grow, for the same times."""
    victim = _victim(ground, "limit", seed)
    return await _filled(victim, tries, *_by_limit(victim.bridge))


def _victim(ground: Ground, name: str, seed: int) -> Victim:
    # Its feed has blocks, and a gap in them is told soon.
    victim = Victim(ground, name, seed, {"BRIDGE_TRACKER__GRACE_SECONDS": str(_GRACE_SECONDS)})
    victim.feed = ChainFeed(seed)
    return victim


async def _filled(
    victim: Victim, tries: int, fill: Callable[[], None], free: Callable[[], None]
) -> Tally:
    tally = victim.tally
    closed = 0
    async with fed(victim, _PER_SECOND, comes_back=True):
        for number in range(tries):
            seconds, before = _SECONDS[number % len(_SECONDS)], victim.feed.turned_away
            fill()
            await _told(victim)
            await asyncio.sleep(seconds)
            if victim.bridge.get("/healthz")[0] != 200:
                tally.broken.append("/healthz failed while the disk was full")
            free()
            await victim.recovered(time.monotonic())
            # After 20 s, unless what was delivered makes room enough: that is to be alerted.
            closed += victim.feed.turned_away > before
            victim.tried()
        if closed:
            await asyncio.sleep(_GAP_SECONDS)
    total = await victim.check()
    held = {
        "JetStream": await victim.sinks.streamed(),
        "Kafka": (await victim.sinks.in_topics()).get("gap-alert", []),
    }
    for place, messages in held.items():
        told = [GapAlert.FromString(each.data) for each in messages if each.kind == "gap-alert"]
        alerts = sum(
            each.type == GapAlert.TYPE_STORAGE and each.status == GapAlert.STATUS_OPENED
            for each in told
        )
        missing = [each for each in told if each.type == GapAlert.TYPE_GAP]
        gaps = {each.gap_id for each in missing if each.cause == GapAlert.CAUSE_STORAGE}
        total.notes.append(
            f"{place}: {alerts} alerts of a closed feed, {len(gaps)} gaps of blocks by storage"
        )
        # Where room was made, and did not last, it is closed again.
        if alerts < closed or bool(alerts) > bool(closed) or bool(gaps) < bool(closed):
            total.broken.append(
                f"{place} tells {alerts} times that the feed was closed, which it was in {closed}"
                " of the fillings"
            )
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
