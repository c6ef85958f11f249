"""One topic takes its messages, another does not: what was acknowledged is no more than that (D6)."""

from __future__ import annotations

import pytest

from bridge.errors import SinkFault, SinkUnavailable
from tests.contract.stand import KafkaStand, opened, rendered
from tests.support.maker import Maker

pytestmark = pytest.mark.brokers


async def test_what_one_topic_does_not_take_is_not_acknowledged(kafka_stand: KafkaStand) -> None:
    maker = Maker(31)
    messages = rendered([maker.commit(), maker.minute(), maker.commit()])
    # Minutes have no key, and without one a compacted topic takes nothing.
    await kafka_stand.make_topic("process-list-event", **{"cleanup.policy": "compact"})
    async with opened(kafka_stand.sink()) as sink:
        with pytest.raises((SinkFault, SinkUnavailable)):
            await sink.publish(messages)
    held = [message.id for message in await kafka_stand.read()]
    assert held == [messages[0].id, messages[2].id]
