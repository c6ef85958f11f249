"""A broker comes back with an older copy of its data: what it had acknowledged since is gone."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

from tests.brokers.kafka import KafkaBroker
from tests.brokers.nats import NatsBroker
from tests.brokers.process import Broker
from tests.faults.ground import Ground
from tests.faults.tally import Tally
from tests.faults.victim import Victim

__all__ = ["set_back"]

_EVENTS = 300
_DELIVER_SECONDS = 60


async def set_back(ground: Ground, tries: int, seed: int) -> Tally:
    """Set NATS and Kafka back in turn: told once, and whole again."""
    total = Tally()
    for number in range(tries):
        victims_seed = seed + number
        if number % 2:
            kafka = KafkaBroker(ground.folder("own-kafka"))
            victim = Victim(ground, "set-back", victims_seed, kafka=kafka)
            total.add(await _one(victim, kafka, kafka.folder / "data"))
        else:
            nats = NatsBroker(ground.folder("own-nats"))
            victim = Victim(ground, "set-back", victims_seed, nats=nats)
            total.add(await _one(victim, nats, nats.folder / "jetstream"))
    return total


async def _one(victim: Victim, broker: Broker, data: Path) -> Tally:
    older = data.with_name("older")
    with broker, victim.bridge as bridge:
        await _send(victim, ready=True)
        broker.stop()
        shutil.copytree(data, older)
        await asyncio.to_thread(broker.start)
        await _send(victim, ready=True)
        broker.stop()
        shutil.rmtree(data)
        older.rename(data)
        await _send(victim, ready=False)
        await asyncio.to_thread(broker.start)
        began = time.monotonic()

        def told() -> bool:
            return bridge.metrics().total("bridge_sink_regressed_total") == 1

        await asyncio.to_thread(bridge.wait_for, told, _DELIVER_SECONDS, "notice the loss")
        await victim.recovered(began)
        await asyncio.to_thread(bridge.stop)
        victim.note()
        victim.tried()
        if (alerts := sum(not each.is_of_feed for each in victim.accepted)) != 1:
            victim.tally.broken.append(f"{alerts} alerts of one loss")
        return await victim.check()


async def _send(victim: Victim, *, ready: bool) -> None:
    bridge = victim.bridge
    if ready:
        await asyncio.to_thread(bridge.wait_ready)
    await victim.feed.some(bridge.feed_port, _EVENTS)
    if ready:
        await bridge.delivered(len(victim.feed.sent), _DELIVER_SECONDS)
