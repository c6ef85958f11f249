"""The journal's disk is full for a while: told within a second, nothing lost, by itself again.

Where it may be mounted, that is a small disk which something else fills to the last byte. Otherwise it
is full by the size that the kernel lets this process's files grow to (EFBIG).
"""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.brokers.nats import NatsBroker
from tests.brokers.process import HOST, free_port
from tests.support.bridge_process import BridgeProcess
from tests.support.consumers import Read, read_stream
from tests.support.maker import Maker
from tests.support.small_disk import CannotMount, small_disk

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

        await asyncio.to_thread(bridge.wait_for, lambda: _alerts(bridge) == 2, 10, "alert")
        await asyncio.to_thread(bridge.stop)

    *_, opened, over = await read_stream(nats_server.url, stream)
    _is_storage_alert(opened, "OPENED")
    _is_storage_alert(over, "RESOLVED")


async def test_a_closed_feed_is_told_while_the_disk_is_full_and_outlives_a_kill(
    tmp_path: Path, nats_server: NatsBroker
) -> None:
    stream = "storage-filled"
    environ = {
        "BRIDGE_NATS__SERVERS": nats_server.url,
        "BRIDGE_NATS__STREAM": stream,
        "BRIDGE_PREFIX": stream,
        # One that has nothing delivered, so that nothing makes room.
        "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": f"{HOST}:{free_port()}",
    }
    maker = Maker(5)
    frames = [maker.reveal(2_000) for _ in range(1_000)]
    with ExitStack() as until:
        try:
            disk = until.enter_context(small_disk(tmp_path / "bridge", "tmpfs", 64))
        except CannotMount as reason:
            pytest.skip(f"NOT TESTED, no disk of its own: {reason}")
        bridge = until.enter_context(BridgeProcess(disk.folder, environ))
        bridge.log = tmp_path / "bridge.log"
        await asyncio.to_thread(
            bridge.wait_for, lambda: _state(bridge, "nats") == "ready", 30, "connect"
        )
        # So large a journal, and nothing of it delivered, that it has no room inside.
        nats_server.pause()
        until.callback(nats_server.resume)
        reader, writer = await asyncio.open_connection("127.0.0.1", bridge.feed_port)
        writer.write(b"".join(frames))
        await asyncio.to_thread(
            bridge.wait_for, lambda: bridge.metrics().accepted == 1_000, 20, "accept"
        )
        disk.fill()
        writer.write(b"".join(frames))
        await _closed(reader)
        writer.close()
        accepted = bridge.metrics().accepted

        # The alert is out while there is no room yet.
        nats_server.resume()
        await asyncio.to_thread(bridge.wait_for, lambda: _alerts(bridge) == 1, 40, "alert")
        read = await read_stream(nats_server.url, stream)
        _is_storage_alert(read[-1], "OPENED")
        assert len(read) == accepted + 1

        # Started anew it works on the full disk, and says so.
        bridge.kill()
        (disk.folder / "ports.json").unlink()
        del bridge.environ["BRIDGE_KAFKA__BOOTSTRAP_SERVERS"]
        disk.fill()
        await asyncio.to_thread(bridge.start)
        writer = (await asyncio.open_connection("127.0.0.1", bridge.feed_port))[1]
        writer.write(b"".join(frames))
        disk.free()
        await asyncio.to_thread(bridge.wait_ready)
        await bridge.delivered(len(frames))
        writer.close()
        await asyncio.to_thread(bridge.stop)

    read = await read_stream(nats_server.url, stream)
    assert sum(each.kind == "gap-alert" for each in read) == 1
    assert [each.seq for each in read] == list(range(1, len(read) + 1))


def _state(bridge: BridgeProcess, part: str) -> str:
    state: str = bridge.ready()["parts"][part]["state"]
    return state


def _alerts(bridge: BridgeProcess) -> float:
    return bridge.metrics().total("bridge_messages_published_total", kind="gap-alert")


def _is_storage_alert(message: Read, status: str) -> None:
    assert message.kind == "gap-alert"
    assert b'"TYPE_STORAGE"' in message.data
    assert f'"STATUS_{status}"'.encode() in message.data


async def _closed(reader: Any) -> None:
    try:
        assert await asyncio.wait_for(reader.read(), 40) == b""
    except ConnectionError:
        return


class _Mute(BridgeProcess):
    """Its log is written to a device that is always full."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        super().__init__(folder, environ)
        self.log = Path("/dev/full")

    @property
    def tail(self) -> str:
        return "(nobody can read its log)"


async def test_a_log_that_cannot_be_written_ends_nothing(
    tmp_path: Path, nats_server: NatsBroker
) -> None:
    environ = {
        "BRIDGE_NATS__SERVERS": nats_server.url,
        "BRIDGE_NATS__STREAM": "mute",
        "BRIDGE_PREFIX": "mute",
        "BRIDGE_LOG__LEVEL": "debug",
    }
    maker = Maker(7)
    with _Mute(tmp_path / "bridge", environ) as bridge:
        await asyncio.to_thread(bridge.wait_ready)
        _, writer = await asyncio.open_connection("127.0.0.1", bridge.feed_port)
        writer.write(b"".join(maker.commit() for _ in range(100)))
        await bridge.delivered(100)
        writer.close()
        assert bridge.metrics().total("bridge_log_failures") > 0
        await asyncio.to_thread(bridge.stop)


def test_an_error_that_cannot_be_told_keeps_its_exit_code() -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "bridge", "run"],
            env={**os.environ, "BRIDGE_FEED__PORTT": "1"},
            stdout=subprocess.DEVNULL,
            stderr=full,
            check=False,
            timeout=30,
        )
    assert ended.returncode == 78
