"""JetStream that is full, gone, or acknowledges nothing: what the sink makes of it (D11)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from nats.js.client import JetStreamContext

from bridge.errors import SinkUnavailable, SinkWedged
from bridge.model import Message
from tests.contract.stand import NatsStand, opened, rendered
from tests.support.consumers import nats_client
from tests.support.maker import Maker

pytestmark = pytest.mark.brokers


@asynccontextmanager
async def _jetstream(stand: NatsStand) -> AsyncIterator[JetStreamContext]:
    async with nats_client(stand.broker.url) as client:
        yield client.jetstream()


async def _configure(stand: NatsStand, **changes: Any) -> None:
    async with _jetstream(stand) as jetstream:
        config = (await jetstream.stream_info(stand.prefix)).config
        await jetstream.update_stream(config.evolve(**changes))


def _reveals(number: int, size: int = 1_000) -> list[Message]:
    maker = Maker(21)
    return rendered([maker.reveal(size) for _ in range(number)])


async def _ids(stand: NatsStand) -> list[str]:
    return [message.id for message in await stand.read()]


@pytest.mark.parametrize("at_a_time", [1, 40], ids=["one by one", "in batches"])
async def test_a_full_stream_keeps_what_it_has_and_takes_the_rest_when_there_is_room(
    nats_stand: NatsStand, at_a_time: int
) -> None:
    messages, sent = _reveals(200), 0
    # As the bridge makes it.
    async with opened(nats_stand.sink(max_bytes=150_000)) as sink:
        with pytest.raises(SinkUnavailable, match="full"):
            while sent < len(messages):
                await sink.publish(messages[sent : sent + at_a_time])
                sent += at_a_time
        assert 0 < sent < len(messages)
        assert (await _ids(nats_stand))[:sent] == [m.id for m in messages[:sent]]
        with pytest.raises(SinkUnavailable, match="full"):
            await sink.publish(messages[sent : sent + at_a_time])
        await _configure(nats_stand, max_bytes=10_000_000)
        await sink.publish(messages[sent:])
    assert await _ids(nats_stand) == [message.id for message in messages]


async def test_where_nobody_answers_for_the_subject_it_is_told_at_once(
    nats_stand: NatsStand,
) -> None:
    messages = _reveals(2)
    async with opened(nats_stand.sink(timeout_seconds=60)) as sink:
        async with _jetstream(nats_stand) as jetstream:
            await jetstream.delete_stream(nats_stand.prefix)
        for some in (messages, messages[:1]):
            with pytest.raises(SinkUnavailable, match="does not answer"):
                await sink.publish(some)
        await sink.close()
        await sink.open()
        await sink.publish(messages)
    assert await _ids(nats_stand) == [message.id for message in messages]


async def test_a_server_that_answers_and_acknowledges_nothing_is_wedged_at_the_third_time(
    nats_stand: NatsStand,
) -> None:
    messages = _reveals(3)
    async with opened(nats_stand.sink(timeout_seconds=1)) as sink:
        await _configure(nats_stand, no_ack=True)
        for expected in (SinkUnavailable, SinkUnavailable, SinkWedged, SinkUnavailable):
            with pytest.raises(SinkUnavailable) as raised:
                await sink.publish(messages[:1])
            assert type(raised.value) is expected
            await sink.close()
            await sink.open()
        await _configure(nats_stand, no_ack=False)
        # The stream has had it since the first time.
        assert await sink.publish(messages) == 1
    assert await _ids(nats_stand) == [message.id for message in messages]
