"""5,000 connections and 200 slow ones beside a true feed: no event of the node is lost by it.

Flood and node have addresses of their own within 127.0.0.0/8. The whole is run by
`python -m pytest -s tests/e2e/test_flood.py`, which prints its figures.
"""

from __future__ import annotations

import asyncio
import json
import struct
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.support.bridge_process import BridgeProcess
from tests.support.consumers import read_stream
from tests.support.journal_file import event_id
from tests.support.maker import Maker

pytestmark = [pytest.mark.brokers, pytest.mark.timeout(300)]

_CONNECTIONS, _SLOW, _ADDRESSES = 5_000, 200, 50
_EVENTS_PER_SECOND = 500
_MOST_BYTES = 256_000_000
_MOST_LINES = 100
_RETRY_SECONDS = 1
_LATEST_SECONDS = 60
_NODE = "127.0.1.1"
_BEGUN = struct.pack("<Bi", 1, 1_000)
_BAD = b"GET / HTTP/1.1\r\n\r\n"


def _address(number: int) -> str:
    return f"127.0.2.{1 + number % _ADDRESSES}"


async def _end(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


class _Node:
    """Sends 500 events/s from an address of its own."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._maker = Maker(11)
        self.ids: list[str] = []
        self.tries = 0
        self.writer: asyncio.StreamWriter | None = None

    async def connect(self) -> None:
        """Connect, and be let in: what is refused is closed before an event is taken."""
        while True:
            self.tries += 1
            with suppress(OSError):
                reader, self.writer = await asyncio.open_connection(
                    "127.0.0.1", self._port, local_addr=(_NODE, 0)
                )
                # A refusal comes at once; a bridge that keeps the connection says nothing.
                with suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1), 0.5)
                    raise ConnectionResetError
                return
            await self.close()
            await asyncio.sleep(_RETRY_SECONDS)

    async def run(self) -> None:
        """Send until cancelled."""
        start, sent = time.monotonic(), 0
        while True:
            due = int((time.monotonic() - start) * _EVENTS_PER_SECOND) - sent
            frames = [self._maker.commit() for _ in range(due)]
            assert self.writer is not None
            self.writer.write(b"".join(frames))
            await self.writer.drain()
            sent += due
            self.ids += [event_id(frame[5:])[1] for frame in frames]
            await asyncio.sleep(0.01)

    async def close(self) -> None:
        if self.writer is not None:
            await _end(self.writer)


@asynccontextmanager
async def _sending(node: _Node) -> AsyncIterator[None]:
    task = asyncio.create_task(node.run())
    try:
        yield
    finally:
        assert not task.done(), f"the node was cut off: {task}"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _slow(port: int, number: int) -> None:
    """Hold a place for as long as it goes, silent or at a byte a second, and come again."""
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, local_addr=(_address(number), 0)
            )
            ended = asyncio.create_task(reader.read(1))
            try:
                for byte in _BEGUN if number % 2 else b"":
                    writer.write(bytes([byte]))
                    await asyncio.sleep(1)
                await ended
            finally:
                ended.cancel()
                await asyncio.gather(ended, return_exceptions=True)
                await _end(writer)
        await asyncio.sleep(1)


async def _flood(port: int, worker: int, count: int) -> None:
    """Connect `count` times, with damage each second time, as fast as it goes."""
    for number in range(count):
        with suppress(OSError):
            _, writer = await asyncio.open_connection(
                "127.0.0.1", port, local_addr=(_address(worker + number), 0)
            )
            if number % 2:
                writer.write(_BAD)
            await _end(writer)


@asynccontextmanager
async def _slow_ones(port: int) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(_slow(port, number)) for number in range(_SLOW)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _resident(bridge: BridgeProcess) -> int:
    status = Path(f"/proc/{bridge.pid}/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


async def test_a_flood_loses_no_event_of_the_node_and_keeps_it_from_no_place(
    tmp_path: Path,
) -> None:
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        bridge = stack.enter_context(BridgeProcess(tmp_path))
        await asyncio.to_thread(bridge.wait_ready)
        node = _Node(bridge.feed_port)
        stack.push_async_callback(node.close)
        await stack.enter_async_context(_slow_ones(bridge.feed_port))
        await asyncio.to_thread(
            bridge.wait_for,
            lambda: bridge.metrics().total("bridge_connections", transport="tcp") == 16,
            30,
            "be full of slow connections",
        )
        await asyncio.wait_for(node.connect(), _LATEST_SECONDS)
        first = node.tries
        async with _sending(node):
            await asyncio.sleep(1)
            await asyncio.gather(
                *(_flood(bridge.feed_port, n, _CONNECTIONS // 20) for n in range(20))
            )
        await bridge.delivered(len(node.ids))
        # It goes and comes again while the slow ones and others want its place.
        await node.close()
        again = asyncio.gather(*(_flood(bridge.feed_port, n, 50) for n in range(20)))
        await asyncio.wait_for(node.connect(), _LATEST_SECONDS)
        second = node.tries - first
        async with _sending(node):
            await again
            await asyncio.sleep(1)
        metrics = await bridge.delivered(len(node.ids))
        refused = metrics.by("bridge_refused_total", "reason")
        resident = _resident(bridge)
        read = await read_stream(f"nats://127.0.0.1:{bridge.nats_port}")
        lines = len(bridge.logged())
        await asyncio.to_thread(bridge.stop)
    print(
        json.dumps(
            {
                "events": len(node.ids),
                "seconds": round(time.monotonic() - began, 1),
                "MB": resident >> 20,
                "log lines": lines,
                "tries to get in": [first, second],
                "refused": refused,
            }
        )
    )
    true = [message.id for message in read if message.kind != "dead-letter"]
    assert true == node.ids
    assert resident < _MOST_BYTES
    assert lines <= _MOST_LINES
    assert refused["evicted"] > 0
    assert sum(refused.values()) >= _CONNECTIONS / 2
