"""The n-th fsync of the process fails, or writes fail for a while.

After a failed fsync nobody knows what is on the disk: the bridge ends. A failed write is a full
disk: it keeps what it has, and goes on when writes go through again.
"""

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

__all__ = ["failing", "not_written"]

_HIGHEST = 100
_ENDS_SECONDS = 1
_REACHED_SECONDS = 30
_STORAGE = 74
_WRITES = (60, 300)
"""Number of the first write of a thread that fails: in the journal's start, some 30 are made."""
_MOST_WRITES = 4
_INJECTED = re.compile(r"^\d+ +([\d.]+) .*INJECTED", re.MULTILINE)


async def failing(ground: Ground, tries: int, seed: int) -> Tally:
    """Fail the n-th fsync of a thread, for `tries` numbers up to 100: exit 74 at once."""
    strace = shutil.which("strace")
    if strace is None:
        return Tally(not_tried="there is no strace on this machine")
    numbers = list(range(1, _HIGHEST + 1))
    if tries < _HIGHEST:
        numbers = random.Random(seed).sample(numbers, tries)
    victim = Victim(ground, "sync", seed, replayed=True)
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
    comparing = asyncio.create_task(victim.compare())
    feed = asyncio.create_task(victim.fed())
    try:
        code = await asyncio.to_thread(bridge.wait, _REACHED_SECONDS)
    except RuntimeError as error:
        code = -signal.SIGKILL
        tally.broken.append(f"sync {number}: {error}")
    ended = time.time()
    await feed
    await comparing
    victim.tried()
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


async def not_written(ground: Ground, tries: int, seed: int) -> Tally:
    """Fail a few writes in a row of the journal, with EIO and ENOSPC in turn, under a feed."""
    strace = shutil.which("strace")
    if strace is None:
        return Tally(not_tried="there is no strace on this machine")
    # No replay: a journal that cannot be written deletes what was delivered.
    victim = Victim(ground, "write", seed)
    try:
        for number in range(tries):
            await _write_fails(victim, ("EIO", "ENOSPC")[number % 2], strace)
        victim.bridge.under = ()
        await victim.finish()
    finally:
        victim.bridge.kill()
    return await victim.check()


async def _write_fails(victim: Victim, error: str, strace: str) -> None:
    bridge = victim.bridge
    trace = bridge.folder / "trace"
    first = victim.random.randint(*_WRITES)
    last = first + victim.random.randint(0, _MOST_WRITES)
    bridge.under = (
        *(strace, "-D", "-f", "--seccomp-bpf", "-qq", "-ttt", "-o", str(trace)),
        *("-e", "trace=pwrite64", "-e", f"inject=pwrite64:error={error}:when={first}..{last}"),
    )
    await victim.start(ready=True)
    feed = asyncio.create_task(victim.feed.bursts(bridge.feed_port))

    def failed() -> bool:
        return _failed_at(trace) is not None

    try:
        await asyncio.to_thread(bridge.wait_for, failed, _REACHED_SECONDS, "fail to write")
        began = time.monotonic()
        await asyncio.to_thread(bridge.wait_ready)
        victim.tally.recovered(time.monotonic() - began)
        accepted = (await asyncio.to_thread(bridge.metrics)).accepted
        await bridge.delivered(accepted + 1)
    except RuntimeError as failure:
        victim.tally.broken.append(f"writes {first} to {last}, {error}: {failure}")
    await asyncio.to_thread(bridge.kill)
    await feed
    await asyncio.to_thread(victim.note)
    victim.tried()


def _failed_at(trace: Path) -> float | None:
    """Return when the first call failed, seconds since 1970."""
    found = _INJECTED.search(trace.read_text(encoding="utf-8", errors="replace"))
    return float(found[1]) if found else None
