"""What of aiokafka is private and the sink relies on.

Ending a producer that has things to send: when that fails after an update, `KafkaSink.close` must
follow. What its accumulator asks of a batch: then `kafka_batch` must.
"""

from __future__ import annotations

import asyncio
import time

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder

from bridge.core.kafkawire import KafkaWire
from bridge.sinks.kafka_batch import WrittenBatch
from tests.brokers.kafka import KafkaBroker
from tests.contract.stand import EPOCH, KafkaStand, opened, rendered
from tests.support.maker import Maker

pytestmark = pytest.mark.brokers


async def test_a_producer_that_is_closed_with_things_to_send_never_sends_them(
    kafka: KafkaBroker,
) -> None:
    maker = Maker(9)
    stand = KafkaStand(kafka)
    sink = stand.sink(timeout_seconds=20)
    await sink.open()
    before = set(asyncio.all_tasks())
    kafka.pause()
    try:
        messages = rendered([maker.commit() for _ in range(50)])
        sending = asyncio.create_task(sink.publish(messages))
        await asyncio.sleep(0.5)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        began = time.monotonic()
        await sink.close()
        assert time.monotonic() - began < 2.5
    finally:
        kafka.resume()
    # Nothing of the producer runs on, to send its batches again when the broker is back.
    await asyncio.sleep(0.5)
    after = asyncio.all_tasks()
    assert not [task for task in after - before if "aiokafka" in repr(task)]
    async with asyncio.timeout(20):
        await sink.open()
        await sink.publish(rendered([maker.commit()], first=51))
        await sink.close()
    assert len(await stand.read()) <= 51


@pytest.mark.parametrize("compression", ["none", "gzip", "lz4", "zstd"])
async def test_a_written_batch_is_stored_as_it_was_meant(
    kafka: KafkaBroker, compression: str
) -> None:
    maker = Maker(10)
    stand = KafkaStand(kafka)
    messages = rendered(
        [maker.commit() for _ in range(300)] + [maker.reveal(300) for _ in range(9)]
    )
    async with opened(stand.sink(compression=compression)) as sink:
        await sink.publish(messages)
        await sink.publish(rendered([maker.commit()], first=len(messages) + 1))
    stored = {int(each.headers["bridge-seq"]): each for each in await stand.read()}
    assert len(stored) == len(messages) + 1
    for message in messages:
        found = stored[message.seq]
        assert (found.key, found.data) == (message.key, message.data)
        assert found.headers == {
            "bridge-epoch": EPOCH,
            "bridge-seq": str(message.seq),
        } | {
            "content-type" if name == "datacontenttype" else f"ce_{name}": value
            for name, value in message.attributes.items()
        }


def test_a_written_batch_is_what_aiokafkas_own_builder_makes() -> None:
    maker = Maker(11)
    messages = rendered(
        [maker.commit() for _ in range(300)] + [maker.reveal(300) for _ in range(9)]
    )
    wire, at = KafkaWire(EPOCH.encode()), 1_700_000_000_000
    records, count = wire.records(messages, 0, 1_000_000)
    assert count == len(messages)
    theirs = BatchBuilder(1_000_000, 0)
    for message in messages:
        headers = [("bridge-epoch", EPOCH.encode())]
        headers += [
            ("content-type" if name == "datacontenttype" else f"ce_{name}", value.encode())
            for name, value in message.layout.constants
        ]
        headers.append(("bridge-seq", b"%d" % message.seq))
        named = zip(message.layout.names, message.values, strict=True)
        headers += [(f"ce_{name}", value.encode()) for name, value in named]
        key = message.key.encode() if message.key is not None else None
        theirs.append(timestamp=at, key=key, value=message.data, headers=headers)
    ours = WrittenBatch(records, count, at, "none")
    assert (ours.record_count(), ours.size()) == (theirs.record_count(), theirs.size())
    for batch in (ours, theirs):
        batch._set_producer_state(11, 12, 13)
    assert ours._build() == bytes(theirs._build())
