"""What of aiokafka is private and the sink relies on: ending a producer that has things to send.

When this fails after an update of aiokafka, `KafkaSink.close` must follow.
"""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.bench.maker import Maker
from tests.brokers.kafka import KafkaBroker
from tests.contract.stand import KafkaStand, rendered

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
