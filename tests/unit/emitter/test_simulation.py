"""A simulation from its start to its end, over real sockets: what it hands over, when it ends."""

from __future__ import annotations

import asyncio
import io
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from rich.console import Console

from bridge.core.framing import split_frames
from bridge.emitter.simulation import Faults, Load, Simulation, feed_config, run
from bridge.pb.eventmessages.factomEvents_pb2 import FactomEvent
from tests.brokers.process import free_port
from tests.support.waiting import during, until

pytestmark = pytest.mark.timeout(20)


class Receiver:
    def __init__(self) -> None:
        self.port = 0
        self.received = bytearray()
        self.connections = 0
        self.ended = 0

    async def receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while data := await reader.read(65_536):
            self.received += data
        writer.close()
        self.ended += 1

    async def all(self) -> bytes:
        """Return what came, once the sender has hung up."""
        await until(lambda: self.ended == self.connections > 0)
        return bytes(self.received)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.receive, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    async with server:
        yield receiver


def console() -> Console:
    return Console(file=io.StringIO(), width=200)


async def test_all_is_handed_over_and_the_same_seed_sends_the_same_bytes() -> None:
    async def sent(seed: int) -> bytes:
        async with receiving() as receiver:
            simulation = Simulation(
                feed_config("127.0.0.1", receiver.port),
                seed=seed,
                blocks=30,
                block_seconds=0,
                load=Load(entries=80),
            )
            assert await run(simulation, asyncio.Event(), console())
            return await receiver.all()

    first = await sent(1)
    events = [FactomEvent.FromString(payload) for _, payload in split_frames(first)]
    # More than the queue holds: the node waits for room.
    assert len(events) > 5_000
    assert await sent(1) == first
    assert await sent(2) != first


async def test_it_ends_at_once_when_nobody_listens_and_one_failure_is_enough() -> None:
    simulation = Simulation(
        feed_config("127.0.0.1", free_port()), blocks=3, block_seconds=0, gives_up=True
    )
    assert not await run(simulation, asyncio.Event(), console())


async def test_what_the_sender_gave_up_is_told_at_the_end() -> None:
    async with receiving() as receiver:
        simulation = Simulation(
            feed_config("127.0.0.1", receiver.port),
            block_seconds=0,
            faults=Faults.parse("cut=100"),
            gives_up=True,
        )
        # Without an end of its own.
        assert not await run(simulation, asyncio.Event(), console())


async def test_an_event_that_nobody_takes_is_not_handed_over() -> None:
    """Taken from the queue, half written: neither waiting nor given up."""
    stop = asyncio.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        simulation = Simulation(
            feed_config("127.0.0.1", server.getsockname()[1]),
            block_seconds=0,
            load=Load(entries=200, smallest=10_000, largest=10_000),
        )
        async with during(run(simulation, stop, console())) as running:
            await asyncio.sleep(1)
            stop.set()
            assert not await running


async def test_what_was_lost_is_told_by_its_counts_at_the_end() -> None:
    shown = console()
    async with receiving() as receiver:
        simulation = Simulation(
            feed_config("127.0.0.1", receiver.port),
            blocks=1,
            block_seconds=0,
            faults=Faults.parse("cut=100"),
            gives_up=True,
        )
        assert not await run(simulation, asyncio.Event(), shown)
    assert isinstance(shown.file, io.StringIO)
    assert re.search(r" [1-9]\d* not sent, 0 dropped, 0 withheld", shown.file.getvalue())


async def test_at_a_pace_of_its_own_it_runs_until_it_is_stopped() -> None:
    stop = asyncio.Event()
    shown = console()
    async with receiving() as receiver:
        simulation = Simulation(feed_config("127.0.0.1", receiver.port), block_seconds=0.2)
        async with during(run(simulation, stop, shown)) as running:
            await until(lambda: b"\x01" in receiver.received and len(receiver.received) > 20_000)
            stop.set()
            assert await running
        whole = await receiver.all()
    assert sum(1 for _ in split_frames(whole)) > 20
    assert isinstance(shown.file, io.StringIO)
    assert "0 dropped" in shown.file.getvalue()


async def test_it_stays_after_the_last_block_until_it_is_stopped() -> None:
    stop = asyncio.Event()
    async with receiving() as receiver:
        simulation = Simulation(
            feed_config("127.0.0.1", receiver.port),
            blocks=1,
            block_seconds=0,
            api_port=0,
            stays=True,
        )
        async with during(run(simulation, stop, console())) as running:
            await until(lambda: bool(receiver.received))
            await asyncio.sleep(0.2)
            assert not running.done()
            stop.set()
            assert await running
