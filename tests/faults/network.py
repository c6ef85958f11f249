"""What lies between the bridge and its brokers is slow, lossy or cut; and SIGTERM in all of it."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from tests.brokers.kafka import KafkaBroker
from tests.brokers.nats import NatsBroker
from tests.brokers.process import HOST, free_port
from tests.faults.ground import Ground
from tests.faults.outages import fed
from tests.faults.proxy import Mood, Proxy
from tests.faults.tally import Tally
from tests.faults.victim import Victim

__all__ = ["moods", "terminated"]

_PER_SECOND = 200
_TIMEOUTS = {"BRIDGE_KAFKA__TIMEOUT_SECONDS": "3", "BRIDGE_NATS__TIMEOUT_SECONDS": "2"}
"""Shorter than the longest mood, so that a swallowed acknowledgement is given up."""

_SHORTEST, _LONGEST = 0.2, 5.0
_STOP_SECONDS = 10
_NEVER = 4
"""Of each five SIGTERMs, the one that comes to a bridge which never had a broker."""
_BAD = [mood for mood in Mood if mood is not Mood.FAIR]


class _Net(NamedTuple):
    """Both brokers behind proxies."""

    victim: Victim
    proxies: tuple[Proxy, Proxy]

    def feel(self, mood: Mood) -> None:
        for proxy in self.proxies:
            proxy.feel(mood)


@asynccontextmanager
async def _net(ground: Ground, name: str, seed: int) -> AsyncIterator[_Net]:
    # A Kafka broker tells its clients where it is to be reached: at the proxy.
    port = free_port()
    advertised = {"advertised.listeners": f"PLAINTEXT://{HOST}:{port}"}
    with (
        KafkaBroker(ground.folder("own-kafka"), properties=advertised) as kafka,
        NatsBroker(ground.folder("own-nats")) as nats,
    ):
        async with Proxy(kafka.port, seed, port) as to_kafka, Proxy(nats.port, seed) as to_nats:
            places = {
                "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": f"{HOST}:{to_kafka.port}",
                "BRIDGE_NATS__SERVERS": f"nats://{HOST}:{to_nats.port}",
            }
            victim = Victim(ground, name, seed, {**places, **_TIMEOUTS}, kafka=kafka, nats=nats)
            yield _Net(victim, (to_kafka, to_nats))


async def moods(ground: Ground, tries: int, seed: int) -> Tally:
    """Hurt one way or both, in each mood in turn, for up to 5 s."""
    async with _net(ground, "network", seed) as net:
        victim = net.victim
        async with fed(victim, _PER_SECOND):
            for number in range(tries):
                hurt = victim.random.choice([net.proxies, net.proxies[:1], net.proxies[1:]])
                for proxy in hurt:
                    proxy.feel(_BAD[number % len(_BAD)])
                await asyncio.sleep(victim.random.uniform(_SHORTEST, _LONGEST))
                net.feel(Mood.FAIR)
                await victim.recovered(time.monotonic())
                victim.tried()
        return await victim.check()


async def terminated(ground: Ground, tries: int, seed: int) -> Tally:
    """Send SIGTERM under a feed, with all brokers up, gone, mute, deaf, and never there in turn."""
    async with _net(ground, "term", seed) as net:
        victim, slowest = net.victim, 0.0
        bridge = victim.bridge
        try:
            for number in range(tries):
                mood = (Mood.FAIR, Mood.GONE, Mood.MUTE, Mood.DEAF, Mood.GONE)[number % 5]
                never = number % 5 == _NEVER
                if never:
                    net.feel(mood)
                await victim.start(ready=not never)
                feed = asyncio.create_task(victim.feed.bursts(bridge.feed_port))
                await asyncio.sleep(victim.random.uniform(0.1, 0.5))
                net.feel(mood)
                await asyncio.sleep(victim.random.uniform(0, 1))
                began = time.monotonic()
                bridge.send_signal(signal.SIGTERM)
                if code := await asyncio.to_thread(bridge.wait, _STOP_SECONDS):
                    victim.tally.broken.append(f"SIGTERM, brokers {mood.name}: exit {code}")
                slowest = max(slowest, time.monotonic() - began)
                await feed
                net.feel(Mood.FAIR)
                victim.note()
                victim.tried()
            await victim.finish()
        finally:
            bridge.kill()
        tally = await victim.check()
        tally.notes.append(f"the slowest end took {slowest:.1f} s")
        return tally
