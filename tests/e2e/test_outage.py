"""A broker is away for a while: the feed is accepted, the other sink goes on, nothing is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.brokers.kafka import KafkaBroker
from tests.brokers.nats import NatsBroker
from tests.brokers.process import Broker
from tests.support.bridge_process import BridgeProcess
from tests.support.consumers import Read, without_repeats
from tests.support.journal_file import event_id
from tests.support.maker import Maker
from tests.support.sinks import Sinks

pytestmark = pytest.mark.brokers

_OUTAGE_SECONDS = 20
_BEFORE_SECONDS = 2
_PER_SECOND = 200
_BURSTS = 20
_BACK_SECONDS = 60
"""More than the longest wait between two attempts, and the time to catch up."""

_SMALL_LAG = 2 * _PER_SECOND


@pytest.fixture
def other_kafka(tmp_path: Path) -> Iterator[KafkaBroker]:
    with KafkaBroker(tmp_path / "other-kafka") as broker:
        yield broker


@pytest.fixture
def other_nats(tmp_path: Path) -> Iterator[NatsBroker]:
    with NatsBroker(tmp_path / "other-nats") as broker:
        yield broker


class _SteadyFeed:
    """A node that sends at its pace, whatever happens, until it is told to end."""

    def __init__(self, seed: int) -> None:
        self._maker = Maker(seed)
        self.expected: list[tuple[str, str]] = []
        self.ends = asyncio.Event()

    @property
    def sent(self) -> int:
        return len(self.expected)

    async def run(self, port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        began = time.monotonic()
        while not self.ends.is_set():
            due = int((time.monotonic() - began) * _PER_SECOND)
            frames = [self._frame() for _ in range(due - self.sent)]
            self.expected += [event_id(frame[5:]) for frame in frames]
            writer.write(b"".join(frames))
            # Waits for ever if the bridge no longer reads.
            await asyncio.wait_for(writer.drain(), 5)
            await asyncio.sleep(1 / _BURSTS)
        writer.close()
        await writer.wait_closed()

    def _frame(self) -> bytes:
        return self._maker.commit() if self.sent % 3 else self._maker.reveal(600)


class _Outage:
    """Stops a broker once all bridges on it are ready for that, and starts it again with all."""

    def __init__(self, broker: Broker, bridges: int) -> None:
        self._broker = broker
        self._all = asyncio.Barrier(bridges)

    async def begin(self) -> None:
        await self._together(self._broker.stop)

    async def end(self) -> None:
        await self._together(self._broker.start)

    async def _together(self, act: Callable[[], None]) -> None:
        async with self._all as place:
            if not place:
                await asyncio.to_thread(act)
        await self._all.wait()


@dataclass
class _Watch:
    """What the metrics said during the outage."""

    bridge: BridgeProcess
    feed: _SteadyFeed
    away: str
    steady: str
    behind: list[int] = field(default_factory=list)
    """Sent a reading before, and not accepted."""
    steady_lag: list[int] = field(default_factory=list)
    away_lag: int = 0

    async def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            sent = self.feed.sent
            await asyncio.sleep(0.5)
            metrics = await asyncio.to_thread(self.bridge.metrics)
            self.behind.append(sent - metrics.accepted)
            self.steady_lag.append(metrics.lag(self.steady))
            self.away_lag = metrics.lag(self.away)


async def _outage(bridge: BridgeProcess, feed: _SteadyFeed, broker: _Outage, watch: _Watch) -> None:
    with bridge:
        parts = await _live_through(bridge, feed, broker, watch)
    assert parts[watch.steady]["ready"], parts
    assert parts["feed"]["ready"], parts
    assert not parts[watch.away]["ready"], parts
    assert parts[watch.away]["cause"], parts


async def _live_through(
    bridge: BridgeProcess, feed: _SteadyFeed, broker: _Outage, watch: _Watch
) -> dict[str, Any]:
    """Let it happen; return what the parts said at the end of the outage."""
    await asyncio.to_thread(bridge.wait_ready)
    feeding = asyncio.create_task(feed.run(bridge.feed_port))
    try:
        await asyncio.sleep(_BEFORE_SECONDS)
        await broker.begin()
        await watch.run(_OUTAGE_SECONDS)
        parts: dict[str, Any] = (await asyncio.to_thread(bridge.ready))["parts"]
        await broker.end()
        await asyncio.to_thread(bridge.wait_ready, _BACK_SECONDS)
    finally:
        feed.ends.set()
        await feeding
    await bridge.delivered(feed.sent, _BACK_SECONDS)
    await asyncio.to_thread(bridge.stop)
    return parts


def _check(watch: _Watch, streamed: list[Read], topics: dict[str, list[Read]]) -> None:
    expected = watch.feed.expected
    assert len(expected) > _PER_SECOND * _OUTAGE_SECONDS
    assert max(watch.behind) < _PER_SECOND, watch.behind
    assert max(watch.steady_lag) < _SMALL_LAG, watch.steady_lag
    assert watch.away_lag > _PER_SECOND * _OUTAGE_SECONDS * 0.8
    assert [(message.kind, message.id) for message in streamed] == expected
    for kind, held in topics.items():
        ids = [id_ for of, id_ in expected if of == kind]
        assert [message.id for message in without_repeats(held)] == ids, kind


async def test_a_broker_away_for_20_s_delays_neither_the_feed_nor_the_other_sink(
    tmp_path: Path,
    kafka: KafkaBroker,
    nats_server: NatsBroker,
    other_kafka: KafkaBroker,
    other_nats: NatsBroker,
) -> None:
    without_kafka, without_nats = _Outage(other_kafka, 2), _Outage(other_nats, 1)
    brokers = (other_kafka, nats_server)
    impatient: dict[str, str] = {"BRIDGE_KAFKA__TIMEOUT_SECONDS": "5"}
    cases: tuple[tuple[str, str, _Outage, Sinks, dict[str, str]], ...] = (
        # By default a batch is waited for longer than this outage: the client sends it again.
        ("kafka", "nats", without_kafka, Sinks(*brokers, "outage-waited-for"), {}),
        ("kafka", "nats", without_kafka, Sinks(*brokers, "outage-given-up"), impatient),
        ("nats", "kafka", without_nats, Sinks(kafka, other_nats, "outage-of-nats"), {}),
    )
    watches: list[_Watch] = []
    async with asyncio.TaskGroup() as tasks:
        for away, steady, outage, sinks, more in cases:
            bridge = BridgeProcess(tmp_path / sinks.name, {**sinks.environ, **more})
            feed = _SteadyFeed(len(watches))
            watch = _Watch(bridge, feed, away, steady)
            watches.append(watch)
            tasks.create_task(_outage(bridge, feed, outage, watch))
    for watch, (_, _, _, sinks, _) in zip(watches, cases, strict=True):
        _check(watch, await sinks.streamed(), await sinks.in_topics())
