"""Brokers hang, die and come back while a node sends at its pace; so does the embedded server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import psutil

from tests.brokers.process import Broker
from tests.faults.ground import Ground
from tests.faults.tally import Tally, in_stream
from tests.faults.victim import Victim
from tests.support.bridge_process import BridgeProcess
from tests.support.consumers import read_stream

__all__ = [
    "checked_embedded",
    "embedded_killed",
    "fed",
    "kafka_killed",
    "kafka_paused",
    "nats_killed",
    "nats_paused",
    "without_brokers",
]

_PAUSES = (5, 35, 130)
_PER_SECOND = 300
_PER_SECOND_KILLED = 600
_EVENTS_PER_KILL = 2_500
_GIVES_WAY = 15
"""Nice value. On two cores Kafka's start would take both from the bridge for seconds."""

_COMMIT_SECONDS = 0.05
_LARGEST_GROWTH = 32_000_000
_LATEST_ORPHAN = 2


async def kafka_paused(ground: Ground, tries: int, seed: int) -> Tally:
    """Stop Kafka's process for 5, 35 and 130 s."""
    return await _paused(Victim(ground, "kafka-paused", seed), ground.kafka, tries)


async def nats_paused(ground: Ground, tries: int, seed: int) -> Tally:
    """Stop the NATS server's process likewise."""
    return await _paused(Victim(ground, "nats-paused", seed), ground.nats, tries)


async def kafka_killed(ground: Ground, tries: int, seed: int) -> Tally:
    """Kill Kafka, and start it again soon."""
    return await _killed(Victim(ground, "kafka-killed", seed), ground.kafka, tries)


async def nats_killed(ground: Ground, tries: int, seed: int) -> Tally:
    """Kill the NATS server, and start it again soon."""
    return await _killed(Victim(ground, "nats-killed", seed), ground.nats, tries)


async def _paused(victim: Victim, broker: Broker, tries: int) -> Tally:
    async with fed(victim, _PER_SECOND):
        for seconds in _PAUSES[:tries]:
            broker.pause()
            try:
                await asyncio.sleep(seconds)
            finally:
                broker.resume()
            await victim.recovered(time.monotonic())
            victim.tried()
    return await victim.check()


async def _killed(victim: Victim, broker: Broker, tries: int) -> Tally:
    async with fed(victim, _PER_SECOND_KILLED):
        for _ in range(tries):
            due = (victim.tally.tries + victim.random.random()) * _EVENTS_PER_KILL
            while len(victim.feed.sent) < due:
                await asyncio.sleep(0.05)
            broker.kill()
            await asyncio.sleep(victim.random.uniform(0, 3))
            await _start_aside(broker)
            await victim.recovered(time.monotonic())
            victim.tried()
    return await victim.check()


async def _start_aside(broker: Broker) -> None:
    """Start it so that it gives way: a broker elsewhere takes no processor from the bridge."""
    starting = asyncio.create_task(asyncio.to_thread(broker.start))
    while broker.pid is None and not starting.done():
        await asyncio.sleep(0.001)
    with suppress(psutil.NoSuchProcess):
        psutil.Process(broker.pid).nice(_GIVES_WAY)
    await starting


@asynccontextmanager
async def fed(victim: Victim, per_second: int, *, comes_back: bool = False) -> AsyncIterator[None]:
    """Run the victim, feed it and watch it during the body; deliver all and end it in order."""
    bridge, tally = victim.bridge, victim.tally
    try:
        await asyncio.to_thread(bridge.start)
        await asyncio.to_thread(bridge.wait_ready)
        feed = victim.feed.steadily(bridge.feed_port, per_second, comes_back=comes_back)
        feeding = asyncio.create_task(feed)
        memory = _Memory(bridge)
        watching = asyncio.create_task(memory.watch())
        try:
            await asyncio.sleep(1)
            yield
            await asyncio.sleep(1)
        finally:
            victim.feed.ends.set()
            await feeding
            watching.cancel()
        within, p99 = _commits(bridge)
        tally.notes.append(
            f"{within:.2%} of commits within {_COMMIT_SECONDS * 1000:g} ms, p99 within"
            f" {p99 * 1000:g} ms; memory grew by {memory.growth / 1e6:.1f} MB"
        )
        if p99 > _COMMIT_SECONDS and not comes_back:
            tally.late.append(f"p99 of commits was above {_COMMIT_SECONDS * 1000:g} ms")
        # While a disk is full, what was read waits in memory, within a bound of its own.
        if memory.growth > _LARGEST_GROWTH and not comes_back:
            tally.broken.append("memory grew by more than 32 MB")
        await victim.finish()
    finally:
        bridge.kill()


class _Memory:
    """How far a process grew beyond what it had when its feed was under way."""

    def __init__(self, bridge: BridgeProcess) -> None:
        self._process = psutil.Process(bridge.pid)
        self.growth = 0

    async def watch(self) -> None:
        await asyncio.sleep(1)
        first = self._process.memory_info().rss
        while True:
            self.growth = max(self.growth, self._process.memory_info().rss - first)
            await asyncio.sleep(0.25)


def _commits(bridge: BridgeProcess) -> tuple[float, float]:
    """Return the share of commits within the limit, and in which time 99 of 100 were done.

    Both by the bounds of the histogram.
    """
    buckets = bridge.metrics().by("bridge_commit_seconds_bucket", "le")
    counts = {float(bound): count for bound, count in sorted(buckets.items())}
    whole = max(counts.values())
    p99 = min(bound for bound, count in counts.items() if count >= 0.99 * whole)
    return counts[_COMMIT_SECONDS] / whole, p99


async def embedded_killed(ground: Ground, tries: int, seed: int) -> Tally:
    """Kill the embedded server, each fifth time by killing the bridge."""
    victim = Victim(ground, "embedded", seed, replayed=True)
    bridge, tally = victim.bridge, victim.tally
    without_brokers(victim)
    try:
        await asyncio.to_thread(bridge.start)
        await asyncio.to_thread(bridge.wait_ready)
        for number in range(1, tries + 1):
            feed = asyncio.create_task(victim.feed.some(bridge.feed_port, 200))
            await asyncio.sleep(victim.random.uniform(0, 0.2))
            if number % 5:
                await _kill_server(victim)
                await feed
                await bridge.delivered(0)
            else:
                await asyncio.gather(feed)
                await _kill_bridge(victim)
            victim.note()
            victim.tried()
        tally = await checked_embedded(victim)
        orphans = f"no orphan after {tries // 5} kills of the bridge"
        tally.notes += [] if tally.broken else [orphans]
        return tally
    finally:
        bridge.kill()


def without_brokers(victim: Victim) -> None:
    """Let it start the embedded server."""
    for name in ("BRIDGE_NATS__SERVERS", "BRIDGE_NATS__STREAM", "BRIDGE_KAFKA__BOOTSTRAP_SERVERS"):
        del victim.bridge.environ[name]


async def checked_embedded(victim: Victim) -> Tally:
    """Let it deliver, compare the embedded server's stream with its journal, and end it."""
    bridge, tally = victim.bridge, victim.tally
    await bridge.delivered(0)
    held = await read_stream(f"nats://127.0.0.1:{bridge.nats_port}")
    await asyncio.to_thread(bridge.stop)
    victim.note()
    await victim.compare()
    tally.accepted += sum(record.is_of_feed for record in victim.accepted)
    tally.add(in_stream(victim.accepted, held))
    return tally


def _server(bridge: BridgeProcess) -> psutil.Process | None:
    for child in psutil.Process(bridge.pid).children():
        with suppress(psutil.Error):
            if child.name() == "nats-server" and child.status() != psutil.STATUS_ZOMBIE:
                return child
    return None


async def _kill_server(victim: Victim) -> None:
    """Kill it; it is back when the bridge is ready with another one."""
    bridge = victim.bridge
    server = _server(bridge)
    assert server is not None
    server.kill()
    began = time.monotonic()

    def is_back() -> bool:
        found = _server(bridge)
        return found is not None and found.pid != server.pid and bool(bridge.ready()["ready"])

    await asyncio.to_thread(bridge.wait_for, is_back, 20, "have its server again")
    victim.tally.recovered(time.monotonic() - began)


async def _kill_bridge(victim: Victim) -> None:
    server = _server(victim.bridge)
    assert server is not None
    await asyncio.to_thread(victim.bridge.kill)
    try:
        await asyncio.to_thread(server.wait, _LATEST_ORPHAN)
    except psutil.TimeoutExpired:
        victim.tally.broken.append(f"the server {server.pid} outlived its bridge")
    await victim.start(ready=True)
