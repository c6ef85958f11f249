"""`python -m tests.bench.bombs [WORD]`: sends every bomb into a real bridge, prints what each does.

Per bomb: the dead letter's reason, most memory (the bridge and its decoding process together), the
longest pause of the bridge's loop as another client sees it, and the time until the dead letter.
The first row is the same without a bomb.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bridge.pb.bridge.v1.dead_letter_pb2 import DeadLetter
from tests.support.bombs import BOMBS
from tests.support.bridge_process import BridgeProcess
from tests.support.consumers import read_stream
from tests.support.pauses import watching

_SECONDS = 300


async def _send(port: int, payload: bytes) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\1" + len(payload).to_bytes(4, "little") + payload)
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def _row(bridge: BridgeProcess, payload: bytes, accepted: int) -> tuple[str, str, str]:
    assert bridge.pid is not None
    began = time.monotonic()
    async with watching(bridge.pid, bridge.status_port) as watched:
        if payload:
            await _send(bridge.feed_port, payload)
            await bridge.delivered(accepted, _SECONDS)
        else:
            await asyncio.sleep(2)
    took = time.monotonic() - began
    return (
        f"{watched.peak_bytes / 2**20:.0f} MiB",
        f"{watched.pause * 1000:.0f} ms",
        f"{took:.1f} s",
    )


async def _measure(folder: Path, word: str) -> None:
    names = [name for name in BOMBS if word in name]
    environ = {"BRIDGE_FORMAT": "protobuf", "BRIDGE_LOG__LEVEL": "error"}
    table = Table("bomb", "dead letter", "memory", "longest pause", "time")
    with BridgeProcess(folder, environ) as bridge:
        await asyncio.to_thread(bridge.wait_ready)
        table.add_row("none", "", *await _row(bridge, b"", 0))
        rows = []
        for number, name in enumerate(names, 1):
            rows.append(await _row(bridge, BOMBS[name](), number))
        read = await read_stream(f"nats://127.0.0.1:{bridge.nats_port}", "FACTOM")
    reasons = [
        DeadLetter.FromString(each.data).reason for each in read if each.kind == "dead-letter"
    ]
    for name, reason, row in zip(names, reasons, rows, strict=True):
        table.add_row(name, reason, *row)
    Console(width=120).print(table)


def main() -> None:
    """Measure the bombs whose name has the word."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_measure(Path(folder), sys.argv[1] if len(sys.argv) > 1 else ""))


if __name__ == "__main__":
    main()
