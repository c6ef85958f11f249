"""SIGKILL at random points while a gap is filled: it goes on, nothing is missing, nothing is twice."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

from bridge.pb.bridge.v1.gap_alert_pb2 import GapAlert
from tests.brokers.kafka import KafkaBroker
from tests.brokers.nats import NatsBroker
from tests.brokers.process import free_port
from tests.e2e.test_complete import Stand, alerts, incomplete
from tests.support.consumers import Read
from tests.support.factomd import Factomd

pytestmark = [pytest.mark.brokers, pytest.mark.timeout(300)]

_KILLS = 100
_BLOCKS = 120
_SEED = 20_261_124
_LONGEST_SECONDS = 0.5


def _twice(read: list[Read]) -> list[str]:
    counted = Counter((each.place, each.id) for each in read)
    return [f"{place} {id_}" for (place, id_), count in counted.items() if count > 1]


async def test_killed_at_random_points_it_resumes(
    tmp_path: Path, kafka: KafkaBroker, nats_server: NatsBroker
) -> None:
    chance, node = random.Random(_SEED), Factomd.of_chain(_BLOCKS)
    # Some of what is asked for does not come by replay.
    node.lost = {height for height in node.heights if height % 5 == 0}
    port = free_port()
    async with node.serve() as url:
        stand = Stand(
            tmp_path,
            kafka,
            nats_server,
            "backfill-kill",
            BRIDGE_FEED__PORT=str(port),
            BRIDGE_NODE__URL=url,
            BRIDGE_NODE__REPLAY_SECONDS="0.1",
            BRIDGE_NODE__REQUESTS_PER_SECOND="1000",
            BRIDGE_TRACKER__GRACE_SECONDS="0.01",
        )
        bridge = stand.bridge
        try:
            await asyncio.to_thread(bridge.start)
            async with node.feeding(port):
                await node.live(0, 1, _BLOCKS - 2, _BLOCKS - 1)
                await stand.until("open the gap", gaps_open=1)
                for _ in range(_KILLS):
                    await asyncio.sleep(chance.uniform(0, _LONGEST_SECONDS))
                    await asyncio.to_thread(bridge.kill)
                    await asyncio.to_thread(bridge.start)
                left = await asyncio.to_thread(
                    lambda: bridge.metrics().total("bridge_heights_missing")
                )
                await stand.settled(_BLOCKS - 1)
            stream, topics = await stand.stream(), await stand.topics()
            code, output = await stand.verify(0, _BLOCKS - 1)
            await asyncio.to_thread(bridge.stop)
        finally:
            bridge.kill()
    print(f"{_KILLS} kills, {left:.0f} of {_BLOCKS - 4} heights were missing after the last")
    assert code == 0, output
    assert not incomplete(stream, range(_BLOCKS))
    assert _twice(stream) == []
    assert _twice([each for topic in topics.values() for each in topic]) == []
    of_gap = [alert.status for alert in alerts(stream) if alert.type == GapAlert.TYPE_GAP]
    assert of_gap.count(GapAlert.STATUS_OPENED) == 1
    assert of_gap.count(GapAlert.STATUS_RESOLVED) == 1
