"""A second instance on the same journal; clocks that jump."""

from __future__ import annotations

import asyncio
import shutil
import struct
import subprocess
import time
from pathlib import Path

from tests.faults.ground import Ground
from tests.faults.outages import fed
from tests.faults.tally import Tally
from tests.faults.victim import Launched, Victim

__all__ = ["clock_jumps", "second_instance"]

_PER_SECOND = 300
_OTHER_INSTANCE = 75
_REFUSED_SECONDS = 1
_JUMPS = (3600, -3600, 10_000_000, -10_000_000, 1, -86_400)


async def second_instance(ground: Ground, tries: int, seed: int) -> Tally:
    """Start another bridge on the journal of one that is fed: it ends with 75 within a second."""
    victim, slowest = Victim(ground, "two", seed), 0.0
    other = Launched(victim.bridge.folder, victim.bridge.environ)
    async with fed(victim, _PER_SECOND):
        for _ in range(tries):
            began = time.monotonic()
            code = await asyncio.to_thread(other.run_to_end)
            seconds = time.monotonic() - began
            slowest = max(slowest, seconds)
            if code != _OTHER_INSTANCE:
                victim.tally.broken.append(f"the second instance ended with {code}")
            victim.tried()
    if slowest > _REFUSED_SECONDS:
        victim.tally.late.append(f"a second instance was refused after {slowest:.2f} s only")
    tally = await victim.check()
    tally.notes.append(f"refused within {slowest:.2f} s, Python's own start included")
    return tally


async def clock_jumps(ground: Ground, tries: int, seed: int) -> Tally:
    """Let the wall clock of a bridge jump by hours and months, both ways, while it is fed."""
    compiler = shutil.which("cc")
    if compiler is None:
        return Tally(not_tried="there is no C compiler on this machine")
    folder = ground.folder("clock")
    library, offset = folder / "clock.so", folder / "offset"
    source = Path(__file__).with_name("clock.c")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source)]
    await asyncio.to_thread(subprocess.run, command, check=True)
    _set(offset, 0)
    shifted = {"LD_PRELOAD": str(library), "FAULT_CLOCK": str(offset)}
    victim = Victim(ground, "clock", seed, shifted)
    async with fed(victim, _PER_SECOND):
        for number in range(tries):
            _set(offset, _JUMPS[number % len(_JUMPS)])
            began = time.monotonic()
            await asyncio.sleep(0.5)
            await victim.recovered(began + 0.5)
            victim.tried()
    tally = await victim.check()
    times = [message.attributes["recordedtime"] for message in await victim.sinks.streamed()]
    tally.notes.append(f"received from {min(times)} to {max(times)}, as the clock had it")
    return tally


def _set(path: Path, seconds: int) -> None:
    """Write into the file that the library has mapped, in place."""
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(struct.pack("=q", seconds))
