"""The LZ4 frames that are put together here, read by brokers and by other clients' decoders."""

from __future__ import annotations

import asyncio

import pytest
from confluent_kafka import Consumer, TopicPartition

from tests.brokers.kafka import KafkaBroker
from tests.contract.stand import KafkaStand, opened, rendered
from tests.support.maker import Maker

pytestmark = pytest.mark.brokers

_SIZES = (40_000, 200_000, 900_000, 3_000_000, 6_000_000)
"""One for each size of block, and more than the largest."""


def _by_librdkafka(bootstrap: str, topic: str, count: int) -> list[bytes]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "any", "check.crcs": True})
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        found: list[bytes] = []
        while len(found) < count:
            messages = consumer.consume(count - len(found), timeout=20)
            assert messages, f"after {len(found)} of {count} nothing more comes"
            assert not [each.error() for each in messages if each.error()]
            found += [each.value() or b"" for each in messages]
        return found
    finally:
        consumer.close()


async def test_frames_of_every_size_are_read_by_other_clients(kafka: KafkaBroker) -> None:
    maker, stand = Maker(12), KafkaStand(kafka)
    sent = []
    async with opened(stand.sink(compression="lz4", batch_bytes=8 * 1024 * 1024)) as sink:
        for number, size in enumerate(_SIZES, 1):
            (message,) = rendered([maker.reveal(10)], first=number)
            sent.append(message._replace(data=message.data.ljust(size)))
            # The broker reads each batch, and refuses what it cannot read.
            await sink.publish(sent[-1:])
    assert [each.data for each in await stand.read()] == [each.data for each in sent]
    topic = f"{stand.prefix}.entry-reveal"
    reading = asyncio.to_thread(_by_librdkafka, kafka.bootstrap, topic, len(sent))
    assert await reading == [each.data for each in sent]
