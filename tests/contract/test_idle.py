"""A sink with nothing to send asks now and then whether what was acknowledged is still there (D9)."""

from __future__ import annotations

import asyncio
import time

import pytest

from bridge.errors import SinkFault, SinkUnavailable
from bridge.ports import Sink
from bridge.sinks.kafka import KafkaSink
from tests.contract.stand import KafkaStand, NatsStand, Stand, kafka_admin, opened, rendered
from tests.support.consumers import nats_client
from tests.support.maker import Maker

pytestmark = pytest.mark.brokers

_AUDIT_SECONDS = 60
_ANSWER_SECONDS = 30


async def _set_back(stand: Stand) -> None:
    """Have the broker lose everything, and go on as if nothing were."""
    if isinstance(stand, KafkaStand):
        async with kafka_admin(stand.broker) as admin:
            await admin.delete_topics([f"{stand.prefix}.entry-commit"])
        await _make_anew(stand.sink())
    elif isinstance(stand, NatsStand):
        async with nats_client(stand.broker.url) as client:
            jetstream = client.jetstream()
            config = (await jetstream.stream_info(stand.prefix)).config
            await jetstream.delete_stream(stand.prefix)
            await jetstream.add_stream(config)


async def _make_anew(sink: Sink) -> None:
    """Open as a lane does, again and again: the broker forgets a topic by and by."""
    async with asyncio.timeout(_ANSWER_SECONDS):
        while True:
            try:
                async with opened(sink):
                    return
            except (SinkUnavailable, SinkFault):
                await asyncio.sleep(0.1)


def _a_minute_passes() -> None:
    """Put the loop's clock forward: what waits for a time of the next minute waits no longer."""
    loop = asyncio.get_running_loop()
    clock = loop.time
    loop.time = lambda: clock() + _AUDIT_SECONDS  # type: ignore[method-assign]
    loop.call_soon(lambda: None)


async def _loss_told(sink: Sink) -> str:
    while True:
        try:
            await sink.watch()
        except SinkUnavailable as error:
            # A busy machine may take longer to answer than a broker may.
            if "no broker answers" not in str(error):
                return str(error)


@pytest.mark.parametrize("loses", [True, False], ids=["set back", "sound"])
async def test_within_a_minute_an_idle_sink_tells_of_a_broker_that_was_set_back(
    stand: Stand, loses: bool
) -> None:
    maker = Maker(8)
    messages = rendered([maker.commit() for _ in range(5)])
    async with opened(stand.sink()) as sink:
        await sink.publish(messages)
        if loses:
            await _set_back(stand)
        watching = asyncio.create_task(_loss_told(sink))
        await asyncio.sleep(0.1)
        assert not watching.done()
        if isinstance(sink, KafkaSink):
            sink._audited = time.monotonic() - _AUDIT_SECONDS
        _a_minute_passes()
        try:
            if loses:
                told = await asyncio.wait_for(watching, _ANSWER_SECONDS)
                assert "has lost what it had acknowledged" in told
            else:
                await asyncio.wait((watching,), timeout=2)
                assert not watching.done()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
