"""The n-th fsync of the process fails: what was to be synced is no longer known to be anywhere."""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import signal
import time
from pathlib import Path

from tests.faults.ground import Ground
from tests.faults.tally import Tally
from tests.faults.victim import Victim

__all__ = ["failing"]

_HIGHEST = 100
_ENDS_SECONDS = 1
_REACHED_SECONDS = 30
_STORAGE = 74
_INJECTED = re.compile(r"^\d+ +([\d.]+) f.*INJECTED", re.MULTILINE)


async def failing(ground: Ground, tries: int, seed: int) -> Tally:
    """Fail the n-th fsync of a thread, for `tries` numbers up to 100: exit 74 at once."""
    strace = shutil.which("strace")
    if strace is None:
        return Tally(not_tried="there is no strace on this machine")
    numbers = list(range(1, _HIGHEST + 1))
    if tries < _HIGHEST:
        numbers = random.Random(seed).sample(numbers, tries)
    victim = Victim(ground, "sync", seed)
    slowest = 0.0
    try:
        for number in numbers:
            slowest = max(slowest, await _one(victim, number, strace))
        victim.bridge.under = ()
        await victim.finish()
    finally:
        victim.bridge.kill()
    tally = await victim.check()
    tally.notes.append(f"ended within {slowest:.2f} s of the failure")
    return tally


async def _one(victim: Victim, number: int, strace: str) -> float:
    """Return how long after the failure the process ended."""
    bridge, tally = victim.bridge, victim.tally
    trace = bridge.folder / "trace"
    failure = f"inject=fsync,fdatasync:error=EIO:when={number}"
    bridge.under = (
        *(strace, "-D", "-f", "--seccomp-bpf", "-qq", "-ttt", "-o", str(trace)),
        *("-e", "trace=fsync,fdatasync", "-e", failure),
    )
    await asyncio.to_thread(bridge.launch)
    feed = asyncio.create_task(victim.fed())
    try:
        code = await asyncio.to_thread(bridge.wait, _REACHED_SECONDS)
    except RuntimeError as error:
        code = -signal.SIGKILL
        tally.broken.append(f"sync {number}: {error}")
    ended = time.time()
    await feed
    tally.tries += 1
    failed = _failed_at(trace)
    if failed is None:
        tally.broken.append(f"sync {number}: was never reached")
        return 0
    if code != _STORAGE:
        tally.broken.append(f"sync {number}: ended with {code}")
    if ended - failed > _ENDS_SECONDS:
        tally.late.append(f"sync {number}: ended {ended - failed:.2f} s after it failed")
    await asyncio.to_thread(victim.note)
    return ended - failed


def _failed_at(trace: Path) -> float | None:
    """Return when the first sync failed, seconds since 1970."""
    found = _INJECTED.search(trace.read_text(encoding="utf-8"))
    return float(found[1]) if found else None
