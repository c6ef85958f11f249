"""The journal's disk is full for a while: told within a second, nothing lost, by itself again.

The disk is full by the size that the kernel lets this process's files grow to (EFBIG), which can be
lowered and raised while it runs.
"""

from __future__ import annotations

import asyncio
import resource
import time
from pathlib import Path
from typing import Any

import pytest

from tests.bench.maker import Maker
from tests.brokers.nats import NatsBroker
from tests.support.bridge_process import BridgeProcess
from tests.support.consumers import read_stream

pytestmark = pytest.mark.brokers

_TOLD_SECONDS = 1
_RESUMES_SECONDS = 5
_SLACK_SECONDS = 2
"""For a machine that does other things too."""


def _let_files_grow_to(bridge: BridgeProcess, size: int) -> None:
    assert bridge.pid is not None
    resource.prlimit(bridge.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


async def test_a_full_disk_stops_the_reading_and_loses_nothing(
    tmp_path: Path, nats_server: NatsBroker
) -> None:
    stream = "storage-full"
    environ = {
        "BRIDGE_NATS__SERVERS": nats_server.url,
        "BRIDGE_NATS__STREAM": stream,
        "BRIDGE_PREFIX": stream,
    }
    maker = Maker(3)
    before, during, after = ([maker.reveal(2_000) for _ in range(500)] for _ in range(3))
    with BridgeProcess(tmp_path / "bridge", environ) as bridge:
        await asyncio.to_thread(bridge.wait_ready)
        _, writer = await asyncio.open_connection("127.0.0.1", bridge.feed_port)
        writer.write(b"".join(before))
        await bridge.delivered(len(before))

        files = (tmp_path / "bridge").glob("journal.db*")
        _let_files_grow_to(bridge, max(file.stat().st_size for file in files))
        writer.write(b"".join(during))
        full = time.monotonic()

        def told() -> bool:
            status, body = bridge.get("/readyz")
            return status == 503 and '"state": "storage_full"' in body

        await asyncio.to_thread(bridge.wait_for, told, _TOLD_SECONDS + _SLACK_SECONDS, "tell")
        assert time.monotonic() - full < _TOLD_SECONDS + _SLACK_SECONDS
        assert bridge.get("/healthz")[0] == 200
        accepted = bridge.metrics().accepted
        assert accepted < len(before + during)
        await asyncio.sleep(2)
        assert bridge.metrics().accepted == accepted
        assert bridge.metrics().total("bridge_storage_refusals_total", code="storage_full") > 2

        _let_files_grow_to(bridge, resource.RLIM_INFINITY)
        writer.write(b"".join(after))
        await asyncio.to_thread(
            bridge.wait_for,
            lambda: bool(bridge.ready()["ready"]),
            _RESUMES_SECONDS + _SLACK_SECONDS,
            "resume",
        )
        await bridge.delivered(len(before + during + after))
        writer.close()
        await asyncio.to_thread(bridge.stop)

    numbers = [message.seq for message in await read_stream(nats_server.url, stream)]
    assert numbers == list(range(1, len(before + during + after) + 1))


async def test_a_disk_that_stays_full_closes_the_feed_and_is_alerted_afterwards(
    tmp_path: Path, nats_server: NatsBroker
) -> None:
    stream = "storage-stays-full"
    environ = {
        "BRIDGE_NATS__SERVERS": nats_server.url,
        "BRIDGE_NATS__STREAM": stream,
        "BRIDGE_PREFIX": stream,
    }
    maker = Maker(4)
    frames = [maker.reveal(2_000) for _ in range(50)]
    with BridgeProcess(tmp_path / "bridge", environ) as bridge:
        await asyncio.to_thread(bridge.wait_ready)
        reader, writer = await asyncio.open_connection("127.0.0.1", bridge.feed_port)
        writer.write(b"".join(frames))
        await bridge.delivered(len(frames))
        _let_files_grow_to(bridge, 4096)
        writer.write(b"".join(frames))

        # The node is told by the closing of its connection, and keeps its own queue then.
        await _closed(reader)
        again, other = await asyncio.open_connection("127.0.0.1", bridge.feed_port)
        await _closed(again)
        other.close()
        writer.close()

        _let_files_grow_to(bridge, resource.RLIM_INFINITY)
        await bridge.delivered(2 * len(frames))

        def alerted() -> bool:
            found = bridge.metrics().total("bridge_messages_published_total", kind="gap-alert")
            return found == 1

        await asyncio.to_thread(bridge.wait_for, alerted, 10, "alert")
        await asyncio.to_thread(bridge.stop)

    last = (await read_stream(nats_server.url, stream))[-1]
    assert (last.kind, b'"TYPE_STORAGE"' in last.data) == ("gap-alert", True)


async def _closed(reader: Any) -> None:
    try:
        assert await asyncio.wait_for(reader.read(), 40) == b""
    except ConnectionError:
        return
