"""What of aiokafka is private and the sink relies on.

What its connection asks of a request: when that fails after an update, `kafka_producer` must follow.
What a batch is: then `kafka_batch` must. And that nothing is sent by a producer that was closed.
"""

from __future__ import annotations

import asyncio
import time

import pytest
from aiokafka.errors import UnsupportedVersionError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.protocol.produce import ProduceRequest

from bridge.core.kafkawire import KafkaWire
from bridge.sinks.kafka_batch import WrittenBatch
from bridge.sinks.kafka_producer import _Produce
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
    assert (ours.count, ours.size) == (theirs.record_count(), theirs.size())
    theirs._set_producer_state(11, 12, 13)
    assert b"".join(ours.parts(11, 12, 13)) == bytes(theirs._build())


def test_a_request_is_what_aiokafkas_own_would_be() -> None:
    parts = {("a", 0): (b"head", b"records"), ("b", 1): (b"", b"x"), ("a", 2): (b"h", b"")}
    ours = _Produce(parts, 4_711).prepare({0: (3, 12)})
    topics = [("a", [(0, b"headrecords"), (2, b"h")]), ("b", [(1, b"x")])]
    asked = ProduceRequest(transactional_id=None, required_acks=-1, timeout=4_711, topics=topics)
    theirs = asked.prepare({0: (3, 12)})
    sent = [
        each.build_request_header(correlation_id=8, client_id="us").encode() + each.encode()
        for each in (ours, theirs)
    ]
    assert sent[0] == sent[1]
    assert ours.RESPONSE_TYPE is theirs.RESPONSE_TYPE
    assert "bytes" in repr(ours)


@pytest.mark.parametrize("versions", [(0, 2), (8, 12)])
def test_a_broker_of_another_time_is_told(versions: tuple[int, int]) -> None:
    with pytest.raises(UnsupportedVersionError):
        _Produce({}, 1_000).prepare({0: versions})
