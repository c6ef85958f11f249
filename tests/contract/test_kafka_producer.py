"""What fails in passing is sent again until it is stored, once and in order: nobody hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import NodeNotReadyError

from bridge.model import Message
from bridge.ports import Sink
from tests.brokers.kafka import KafkaBroker
from tests.contract.stand import KafkaStand, kafka_admin, opened, rendered
from tests.support.kafka_config import set_config
from tests.support.maker import Maker

pytestmark = [
    pytest.mark.brokers,
    # As in test_sinks.py.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

_SMALL_BATCH = 16_384
_PATIENCE_SECONDS = 40
_REPLICATED = {"partitions": 4, "replication_factor": 2, "timeout_seconds": _PATIENCE_SECONDS}


async def _held(stand: KafkaStand, messages: list[Message]) -> None:
    """Assert that each of `messages` is there once, and that each partition is in order."""
    stored = await stand.read()
    assert sorted(int(each.headers["bridge-seq"]) for each in stored) == [
        each.seq for each in messages
    ]
    last: dict[object, int] = {}
    for each in stored:
        seq = int(each.headers["bridge-seq"])
        partition = each.place, each.partition
        assert seq > last.get(partition, 0)
        last[partition] = seq


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[KafkaBroker, KafkaBroker]]:
    """Two brokers of one cluster; the first is the controller."""
    with (
        KafkaBroker(tmp_path / "one") as first,
        KafkaBroker(tmp_path / "two", beside=first) as second,
    ):
        async with kafka_admin(first) as admin, asyncio.timeout(_PATIENCE_SECONDS):
            while len((await admin.describe_cluster())["brokers"]) < 2:
                await asyncio.sleep(0.1)
        yield first, second


async def test_partitions_whose_leader_dies_are_filled_through_the_next_one(
    pair: tuple[KafkaBroker, KafkaBroker],
) -> None:
    first, second = pair
    maker, stand = Maker(72), KafkaStand(first)
    messages = rendered([maker.mix() for _ in range(2_000)])
    async with opened(stand.sink(**_REPLICATED)) as sink:
        led = await _led_by_second(first, f"{stand.prefix}.entry-reveal")
        assert 0 < led < _REPLICATED["partitions"]
        await sink.publish(messages[:1_000])
        sending = asyncio.create_task(_publish(sink, messages[1_000:]))
        await asyncio.sleep(0.02)
        assert not sending.done()
        second.kill()
        await sending
    await _held(stand, messages)


async def test_what_cannot_be_replicated_is_sent_again_until_it_can(
    pair: tuple[KafkaBroker, KafkaBroker],
) -> None:
    first, second = pair
    maker, stand = Maker(71), KafkaStand(first)
    messages = rendered([maker.mix() for _ in range(600)])
    topic = f"{stand.prefix}.entry-commit"
    # Several batches for each partition: those behind one that waits wait too.
    async with opened(stand.sink(**_REPLICATED, batch_bytes=_SMALL_BATCH)) as sink:
        await set_config(first.bootstrap, topic, "min.insync.replicas", "2")
        await sink.publish(messages[:100])
        second.kill()
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while await _in_sync(first, topic) > 1:
                await asyncio.sleep(0.1)
        sending = asyncio.create_task(sink.publish(messages[100:500]))
        await asyncio.sleep(1)
        assert not sending.done()
        await asyncio.to_thread(second.start)
        await sending
        # Its numbers go on as if nothing had been.
        await sink.publish(messages[500:])
    await _held(stand, messages)


async def _publish(sink: Sink, messages: list[Message]) -> None:
    for at in range(0, len(messages), 50):
        await sink.publish(messages[at : at + 50])
        await asyncio.sleep(0.01)


async def _led_by_second(broker: KafkaBroker, topic: str) -> int:
    async with kafka_admin(broker) as admin:
        return sum(each["leader"] == 2 for each in await _partitions(admin, topic))


async def _in_sync(broker: KafkaBroker, topic: str) -> float:
    """Return how many replicas a partition has, or more while the client asks one that is gone."""
    async with kafka_admin(broker) as admin:
        with suppress(NodeNotReadyError):
            return max(len(each["isr"]) for each in await _partitions(admin, topic))
    return inf


async def _partitions(admin: Any, topic: str) -> list[dict[str, Any]]:
    (told,) = await admin.describe_topics([topic])
    found: list[dict[str, Any]] = told["partitions"]
    return found
