"""With no sink configured: a NATS server of the bridge's own, kept alive and never left behind."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path

import psutil
import pytest

from tests.brokers.process import free_port
from tests.support.bridge_process import BridgeProcess, run_command
from tests.support.consumers import read_stream
from tests.support.journal_file import event_id
from tests.support.maker import Maker

pytestmark = pytest.mark.brokers

_SECONDS = 10


def _server(bridge: BridgeProcess) -> psutil.Process:
    """Return the one child of `bridge`."""
    (child,) = psutil.Process(bridge.pid).children(recursive=True)
    assert Path(child.cmdline()[0]).name == "nats-server"
    return child


async def _send(bridge: BridgeProcess, frames: list[bytes]) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", bridge.feed_port)
    writer.write(b"".join(frames))
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def _ids(bridge: BridgeProcess) -> list[str]:
    return [message.id for message in await read_stream(f"nats://127.0.0.1:{bridge.nats_port}")]


def _frames(number: int, seed: int = 1) -> tuple[list[bytes], list[str]]:
    maker = Maker(seed)
    frames = [maker.commit() for _ in range(number)]
    return frames, [event_id(frame[5:])[1] for frame in frames]


def test_it_keeps_its_store_in_the_journals_folder_and_syncs_each_write(tmp_path: Path) -> None:
    with BridgeProcess(tmp_path) as bridge:
        bridge.wait_ready()
        server = _server(bridge)
        config = Path(server.cmdline()[server.cmdline().index("-c") + 1])
        text = config.read_text(encoding="utf-8")
        opened = [Path(file.path) for file in server.open_files()]
        listening = {
            (connection.laddr.ip, connection.laddr.port)
            for connection in server.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        bridge.stop()
    assert "sync_interval: always" in text
    assert config.is_relative_to(tmp_path)
    assert list(tmp_path.glob("nats/**/*.blk"))
    stored = [path for path in opened if path.suffix in {".blk", ".db"}]
    assert all(path.is_relative_to(tmp_path) for path in stored)
    assert listening == {("127.0.0.1", bridge.nats_port)}


async def test_a_server_that_dies_is_started_again_and_has_what_it_had(tmp_path: Path) -> None:
    frames, ids = _frames(600)
    with BridgeProcess(tmp_path) as bridge:
        await asyncio.to_thread(bridge.wait_ready)
        await _send(bridge, frames[:200])
        await bridge.delivered(200)
        first = _server(bridge)
        first.kill()
        await _send(bridge, frames[200:400])
        await bridge.delivered(400)
        second = _server(bridge)
        assert second.pid != first.pid
        second.send_signal(signal.SIGTERM)
        await _send(bridge, frames[400:])
        await bridge.delivered(600)
        assert bridge.ready()["ready"]
        assert await _ids(bridge) == ids
        bridge.stop()


async def test_what_it_stored_is_there_after_a_restart_of_the_bridge(tmp_path: Path) -> None:
    frames, ids = _frames(100)
    bridge = BridgeProcess(tmp_path)
    for part in (frames[:50], frames[50:]):
        with bridge:
            await _send(bridge, part)
            await bridge.delivered(len(part))
            read = await _ids(bridge)
            bridge.stop()
    assert read == ids


def test_it_ends_with_the_bridge(tmp_path: Path) -> None:
    with BridgeProcess(tmp_path) as bridge:
        bridge.wait_ready()
        server = _server(bridge)
        bridge.stop()
        assert not server.is_running()


def test_it_is_not_left_behind_by_a_bridge_that_was_killed(tmp_path: Path) -> None:
    with BridgeProcess(tmp_path) as bridge:
        bridge.wait_ready()
        server = _server(bridge)
        bridge.kill()
        server.wait(_SECONDS)


async def test_a_killed_bridge_comes_back_at_once_on_the_same_port(tmp_path: Path) -> None:
    frames, ids = _frames(500)
    bridge = BridgeProcess(tmp_path, {"BRIDGE_EMBEDDED__PORT": str(free_port())})
    for number in range(5):
        with bridge:
            part = frames[number * 100 : (number + 1) * 100]
            await _send(bridge, part)
            await bridge.delivered(len(part))
            bridge.kill()
    with bridge:
        await bridge.delivered(0)
        assert await _ids(bridge) == ids
        bridge.stop()


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        done = run_command(
            "run",
            environ={
                "BRIDGE_JOURNAL__DIR": str(tmp_path),
                "BRIDGE_FEED__PORT": "0",
                "BRIDGE_STATUS__PORT": "0",
                "BRIDGE_EMBEDDED__PORT": str(port),
            },
        )
    assert done.returncode == 69
    assert f"127.0.0.1:{port}" in done.stderr
    assert "BRIDGE_EMBEDDED__PORT" in done.stderr
