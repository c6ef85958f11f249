"""Ending with something on its way: what was committed is acknowledged, and the checkpoints say so."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import bridge.journal
from bridge.app import running
from bridge.environment import load
from bridge.journal.sqlite import Journal
from bridge.model import Group
from tests.brokers.nats import NatsBroker
from tests.faults.chain_feed import ChainFeed
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


async def test_what_the_tracker_was_about_to_say_is_published_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saying = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Slow(Journal):
        """On a disk that takes its time for what the tracker says."""

        def _commit(self, runs: Any = (), advance: Any = None, **how: Any) -> list[Group]:
            if runs and advance:
                loop.call_soon_threadsafe(saying.set)
                time.sleep(0.3)
            return super()._commit(runs, advance, **how)

    monkeypatch.setattr(bridge.journal, "Journal", Slow)
    feed, frames = ChainFeed(1), list[bytes]()
    while not frames or event_id(frames[-1][5:])[0] != "directory-block-commit":
        frames.append(feed.frame())
    with NatsBroker(tmp_path / "nats") as nats:
        environ = {
            "BRIDGE_NATS__SERVERS": nats.url,
            "BRIDGE_JOURNAL__DIR": str(tmp_path),
            "BRIDGE_FEED__PORT": "0",
            "BRIDGE_STATUS__PORT": "0",
        }
        async with asyncio.timeout(_SECONDS), running(load(environ)) as bridge_:
            _, node = await asyncio.open_connection("127.0.0.1", bridge_.ports["feed"])
            node.write(b"".join(frames))
            await saying.wait()
        node.transport.abort()
        read = await read_stream(nats.url)
    journal = JournalFile(tmp_path)
    assert journal.head == len(frames) + 1
    assert [message.seq for message in read] == list(range(1, journal.head + 1))
    assert journal.positions()["nats"] == journal.head
