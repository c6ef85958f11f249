"""Measures from outside how long a bridge's loop lets others wait, and what memory it has.

A process of its own asks `/healthz` without pause; the longest time without an answer is printed
when its input ends.
"""

from __future__ import annotations

import asyncio
import select
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil

__all__ = ["Watched", "watching"]

_SAMPLE_SECONDS = 0.02


class Watched:
    """What was seen."""

    def __init__(self) -> None:
        self.pause = 0.0
        """Longest time until an answer, in seconds."""
        self._peaks: dict[int, int] = {}

    @property
    def peak_bytes(self) -> int:
        """Most memory of the bridge, and of the largest process that it decodes in, together."""
        bridge, *children = self._peaks.values()
        return bridge + max(children, default=0)

    def sample(self, bridge: psutil.Process) -> None:
        """Note the peaks of the bridge and its decoding process so far."""
        with suppress(psutil.Error, OSError):
            children = [
                each for each in bridge.children() if "bridge.stages.aside" in each.cmdline()
            ]
            for each in (bridge, *children):
                status = Path(f"/proc/{each.pid}/status").read_text(encoding="ascii")
                found = [line for line in status.splitlines() if line.startswith("VmHWM")]
                if found:
                    self._peaks[each.pid] = int(found[0].split()[1]) * 1024


@asynccontextmanager
async def watching(pid: int, status_port: int) -> AsyncIterator[Watched]:
    """Watch the bridge `pid` meanwhile. Its peak of memory is counted anew."""
    watched, bridge = Watched(), psutil.Process(pid)
    for each in (bridge, *bridge.children()):
        Path(f"/proc/{each.pid}/clear_refs").write_text("5", encoding="ascii")
    asking = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.pauses",
        str(status_port),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    watched.sample(bridge)
    sampling = asyncio.create_task(_sample(watched, bridge))
    try:
        yield watched
    finally:
        sampling.cancel()
        told, _ = await asking.communicate(b"")
        watched.pause = float(told)


async def _sample(watched: Watched, bridge: psutil.Process) -> None:
    while True:
        await asyncio.to_thread(watched.sample, bridge)
        await asyncio.sleep(_SAMPLE_SECONDS)


def _ask(port: int) -> float:
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as line:
        line.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        while line.recv(4096):
            pass
    return time.monotonic() - began


def _main() -> None:
    sys.stdin = open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)  # noqa: SIM115

    longest = 0.0
    while not select.select([sys.stdin], [], [], 0.005)[0]:
        longest = max(longest, _ask(int(sys.argv[1])))
    print(longest)


if __name__ == "__main__":
    _main()
