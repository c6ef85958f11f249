"""SIGTERM with something on its way: what was read is acknowledged, and the checkpoints say so."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from tests.brokers.nats import NatsBroker
from tests.support.bridge_process import BridgeProcess
from tests.support.consumers import read_stream
from tests.support.journal_file import JournalFile, event_id
from tests.support.maker import Maker

pytestmark = pytest.mark.brokers

_SECONDS = 30


async def test_what_was_read_is_acknowledged_before_the_end(tmp_path: Path) -> None:
    maker = Maker(4)
    frames = [maker.commit() for _ in range(400)]
    with NatsBroker(tmp_path / "nats") as nats:
        bridge = BridgeProcess(tmp_path / "bridge", {"BRIDGE_NATS__SERVERS": nats.url})
        with bridge:
            await asyncio.to_thread(bridge.wait_ready)
            _, node = await asyncio.open_connection("127.0.0.1", bridge.feed_port)
            nats.pause()
            node.write(b"".join(frames))
            await node.drain()
            await asyncio.to_thread(
                bridge.wait_for,
                lambda: bridge.metrics().accepted == len(frames),
                _SECONDS,
                "accept all",
            )
            bridge.terminate()
            await asyncio.to_thread(
                bridge.wait_for,
                lambda: any(line["event"] == "stopping" for line in bridge.logged()),
                _SECONDS,
                "begin to stop",
            )
            await asyncio.sleep(0.3)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", bridge.feed_port)
            nats.resume()
            code = await asyncio.to_thread(bridge.wait)
            node.close()
            with suppress(OSError):
                await node.wait_closed()
            assert code == 0
        read = [message.id for message in await read_stream(nats.url)]
    assert read == [event_id(frame[5:])[1] for frame in frames]
    positions = JournalFile(bridge.folder).positions()
    assert positions["nats"] == len(frames)
