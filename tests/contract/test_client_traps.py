"""Traps of the client libraries (delivery.md) that no other test of this folder springs."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from bridge.errors import SinkUnavailable
from bridge.sinks.kafka import KafkaSink
from tests.brokers.nats import NatsBroker
from tests.contract.stand import KafkaStand, NatsStand, rendered
from tests.support.maker import Maker

pytestmark = [
    pytest.mark.brokers,
    # As in test_sinks.py.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

_LONG_SECONDS = 60
"""A timeout that no test waits for."""


async def test_a_sequence_number_that_wraps_ends_nothing(kafka_stand: KafkaStand) -> None:
    """After 2**31 records of a partition aiokafka's own producer is at its end."""
    maker = Maker(61)
    messages = rendered([maker.commit() for _ in range(30)])
    sink = kafka_stand.sink(timeout_seconds=5)
    assert isinstance(sink, KafkaSink)
    await sink.open()
    # Nobody has the time to send so many: the producer is told that they were.
    place = f"{kafka_stand.prefix}.entry-commit", 0
    producer: Any = sink._producer
    producer._next[place] = 2**31 - 15
    for number in range(3):
        await sink.publish(messages[number * 10 : number * 10 + 10])
    assert producer._next[place] == 15
    await sink.close()
    ids = [message.id for message in await kafka_stand.read()]
    assert ids == [message.id for message in messages]


async def test_a_nats_connection_that_is_lost_fails_what_waits_at_once(
    nats_server: NatsBroker,
) -> None:
    """The library's own futures would never resolve, nor is the timeout waited for."""
    stand, maker = NatsStand(nats_server, atomic=True), Maker(62)
    messages = rendered([maker.commit() for _ in range(10)])
    sink = stand.sink(timeout_seconds=_LONG_SECONDS)
    await sink.open()
    nats_server.pause()
    try:
        sending = asyncio.create_task(sink.publish(messages))
        await asyncio.sleep(0.5)
        assert not sending.done()
        began = time.monotonic()
        nats_server.kill()
        with pytest.raises(SinkUnavailable):
            await sending
        assert time.monotonic() - began < _LONG_SECONDS / 3
    finally:
        nats_server.kill()
        await asyncio.to_thread(nats_server.start)
    await sink.close()


async def test_a_nats_client_never_comes_back_by_itself_nor_sends_what_it_could_not(
    nats_server: NatsBroker,
) -> None:
    stand, maker = NatsStand(nats_server, atomic=True), Maker(63)
    messages = rendered([maker.commit() for _ in range(20)])
    sink = stand.sink(timeout_seconds=_LONG_SECONDS)
    await sink.open()
    await sink.publish(messages[:10])
    nats_server.kill()
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(SinkUnavailable):
            await sink.publish(messages[10:])
    await asyncio.to_thread(nats_server.start)
    # Longer than the library waits before it connects anew.
    await asyncio.sleep(3)
    with pytest.raises(SinkUnavailable):
        await sink.publish(messages[10:])
    assert time.monotonic() - began < _LONG_SECONDS / 2, "it is refused at once"
    assert [message.id for message in await stand.read()] == [m.id for m in messages[:10]]
    await sink.close()
    await sink.open()
    assert await sink.publish(messages[10:]) == 0
    await sink.close()
    assert [message.id for message in await stand.read()] == [m.id for m in messages]
