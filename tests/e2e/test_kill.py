"""SIGKILL at any moment: what was accepted reaches both sinks, in order, once in JetStream."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.brokers.kafka import KafkaBroker
from tests.brokers.nats import NatsBroker
from tests.support.bridge_process import BridgeProcess
from tests.support.consumers import without_repeats
from tests.support.journal_file import JournalFile, Stored, event_id
from tests.support.maker import Maker
from tests.support.sinks import Sinks

pytestmark = pytest.mark.brokers

_SEED = 4
_KILLS = 200
_BRIDGES = 4
"""Killed side by side, each with a journal of its own: starting Python takes most of the time."""

_EARLIEST, _LATEST = 0.005, 0.3
"""Seconds after the feed began."""


class _Feed:
    """A node that sends events for as long as somebody takes them."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._maker = Maker(seed)
        self.sent: dict[str, int] = {}
        """Ids of what was sent, whole or not, with their place."""

    async def run(self, port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            while True:
                frames = [self._frame() for _ in range(self._random.randint(1, 12))]
                for frame in frames:
                    self.sent[event_id(frame[5:])[1]] = len(self.sent)
                burst = b"".join(frames)
                # The end of a burst may be in the middle of a frame.
                cut = self._random.randrange(len(burst))
                writer.write(burst[:cut])
                await asyncio.sleep(self._random.uniform(0, 0.02))
                writer.write(burst[cut:])
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()

    def _frame(self) -> bytes:
        if self._random.random() < 0.005:
            return self._maker.reveal(300_000)
        return self._maker.mix()


class _Victim:
    """One bridge, its feed, and what its journal had accepted at each of its ends."""

    def __init__(self, folder: Path, sinks: Sinks, seed: int) -> None:
        self.sinks = sinks
        self.bridge = BridgeProcess(folder, sinks.environ)
        self.accepted: list[Stored] = []
        self._journal = JournalFile(folder)
        self._feed = _Feed(seed)
        self._random = random.Random(seed)

    async def kill(self, times: int) -> None:
        try:
            for number in range(times):
                await asyncio.to_thread(self.bridge.start)
                if number % 2:
                    # Else it is killed while it still connects, with the backlog of the last time.
                    await asyncio.to_thread(self.bridge.wait_ready)
                await self._once(asks=number % 4 == 0)
            await asyncio.to_thread(self._finish)
        finally:
            await asyncio.to_thread(self.bridge.kill)

    async def _once(self, *, asks: bool) -> None:
        feed = asyncio.create_task(self._feed.run(self.bridge.feed_port))
        try:
            await asyncio.sleep(self._random.uniform(_EARLIEST, _LATEST))
            told = (await asyncio.to_thread(self.bridge.metrics)).accepted if asks else 0
            self.bridge.kill()
        finally:
            feed.cancel()
            await asyncio.gather(feed, return_exceptions=True)
        new = await asyncio.to_thread(self._note)
        assert told <= new, f"{told} were told as accepted, {new} are in the journal"

    def _note(self) -> int:
        """Note what was accepted since the last time; return how many events of the feed."""
        after = self.accepted[-1].seq if self.accepted else 0
        new = self._journal.stored(after)
        self.accepted += new
        return sum(record.is_of_feed for record in new)

    def _finish(self) -> None:
        """Let everything through, and end it in order."""
        bridge, journal = self.bridge, self._journal
        bridge.start()
        bridge.wait_for(lambda: set(journal.positions().values()) == {journal.head}, 30, "deliver")
        bridge.stop()
        self._note()

    async def check(self) -> None:
        accepted, journal = self.accepted, self._journal.stored()
        assert journal == accepted, "the journal is not what it was after each kill"
        fed = [record.id for record in accepted if record.is_of_feed]
        places = [self._feed.sent[id_] for id_ in fed]
        assert places == sorted(set(places)), "not accepted in the order of the feed, each once"
        expected = [(record.seq, record.id) for record in accepted]
        streamed = [(message.seq, message.id) for message in await self.sinks.streamed()]
        assert streamed == expected
        topics = await self.sinks.in_topics()
        assert {kind for kind, held in topics.items() if held} == {each.kind for each in accepted}
        for kind, held in topics.items():
            expected = [(record.seq, record.id) for record in accepted if record.kind == kind]
            assert [(each.seq, each.id) for each in without_repeats(held)] == expected


# Under two minutes even beside other work; alone, about one.
@pytest.mark.timeout(240)
async def test_a_bridge_killed_at_200_points_loses_nothing_that_it_accepted(
    tmp_path: Path, kafka: KafkaBroker, nats_server: NatsBroker
) -> None:
    victims = [
        _Victim(tmp_path / name, Sinks(kafka, nats_server, name), _SEED + number)
        for number, name in enumerate(f"kill-{number}" for number in range(_BRIDGES))
    ]
    async with asyncio.TaskGroup() as tasks:
        for victim in victims:
            tasks.create_task(victim.kill(_KILLS // _BRIDGES))
    for victim in victims:
        await victim.check()
    assert sum(len(victim.accepted) for victim in victims) > 20 * _KILLS
