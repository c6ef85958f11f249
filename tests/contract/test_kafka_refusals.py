"""A batch that Kafka refuses beside others that fail for another reason, in one sending."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bridge.errors import MessageRefused, SinkFault, SinkUnavailable
from bridge.model import Message
from bridge.ports import Sink
from tests.contract.stand import KafkaStand, kafka_admin, opened, rendered
from tests.support.kafka_config import set_config
from tests.support.maker import Maker

pytestmark = [
    pytest.mark.brokers,
    # As in test_sinks.py.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

_LIMIT = 20_000
_BATCH = 16_384
_TIMEOUT = 8


@asynccontextmanager
async def _with_lowered_limit(stand: KafkaStand) -> AsyncIterator[Sink]:
    """Yield a sink that was opened before the limit of entry reveals was lowered."""
    async with opened(stand.sink(batch_bytes=_BATCH, timeout_seconds=_TIMEOUT)) as sink:
        await _lower(stand, _LIMIT)
        yield sink


async def _set_policy(stand: KafkaStand, policy: str) -> None:
    """Say how minutes are cleaned up. Compacted, their topic takes none: they have no key."""
    topic = f"{stand.prefix}.process-list-event"
    await set_config(stand.broker.bootstrap, topic, "cleanup.policy", policy)


async def _lower(stand: KafkaStand, limit: int) -> None:
    topic = f"{stand.prefix}.entry-reveal"
    await set_config(stand.broker.bootstrap, topic, "max.message.bytes", str(limit))


def _commits_then(*frames: bytes) -> list[Message]:
    maker = Maker(41)
    return rendered([*(maker.commit() for _ in range(3)), *frames])


async def _seqs(stand: KafkaStand) -> dict[str, list[int]]:
    """Return what is there: the numbers by topic, in its order, each once."""
    found: dict[str, list[int]] = {}
    for message in await stand.read():
        numbers = found.setdefault(message.kind, [])
        if message.seq not in numbers:
            numbers.append(message.seq)
    return found


async def test_a_refused_message_is_named_though_another_topic_fails_too(
    kafka_stand: KafkaStand,
) -> None:
    stand, maker = kafka_stand, Maker(42)
    small = [maker.reveal(3_000) for _ in range(8)]
    messages = _commits_then(maker.reveal(30_000), *small, maker.minute())
    async with _with_lowered_limit(stand) as sink:
        await _set_policy(stand, "compact")
        with pytest.raises(MessageRefused, match="MessageSizeTooLarge") as caught:
            await sink.publish(messages)
        assert caught.value.position == 3
        await _set_policy(stand, "delete")
        # As the lane does, with something in its place or, as here, nothing.
        await sink.close()
        await sink.open()
        await sink.publish(messages[4:])
    assert await _seqs(stand) == {
        "entry-commit": [1, 2, 3],
        "entry-reveal": list(range(5, 13)),
        "process-list-event": [13],
    }


async def test_a_topic_at_fault_is_a_fault_of_the_sink_though_another_message_is_refused(
    kafka_stand: KafkaStand,
) -> None:
    """No event is dead-lettered for it: the one that its topic does not take is in front."""
    stand, maker = kafka_stand, Maker(43)
    messages = _commits_then(maker.minute(), maker.reveal(30_000), maker.reveal(100))
    async with _with_lowered_limit(stand) as sink:
        await _set_policy(stand, "compact")
        with pytest.raises(SinkFault):
            await sink.publish(messages)
        await _set_policy(stand, "delete")
        await sink.close()
        await sink.open()
        with pytest.raises(MessageRefused) as caught:
            await sink.publish(messages)
        assert caught.value.position == 4
    found = await _seqs(stand)
    assert found["entry-commit"] == [1, 2, 3]
    assert found["process-list-event"] == [4]


async def test_a_topic_that_is_gone_is_unavailable_though_another_message_is_refused(
    kafka_stand: KafkaStand,
) -> None:
    stand, maker = kafka_stand, Maker(44)
    messages = _commits_then(maker.reveal(30_000), maker.minute())
    async with _with_lowered_limit(stand) as sink:
        async with kafka_admin(stand.broker) as admin:
            topic = f"{stand.prefix}.process-list-event"
            await admin.delete_topics([topic])
            async with asyncio.timeout(20):
                while topic in await admin.list_topics():
                    await asyncio.sleep(0.1)
            await asyncio.sleep(0.5)  # until its log has followed
        # The client asks for it again and again: our own patience ends that.
        with pytest.raises(SinkUnavailable):
            await sink.publish(messages)
        await sink.close()
        await sink.open()
        with pytest.raises(MessageRefused) as caught:
            await sink.publish(messages)
        assert caught.value.position == 3
        await sink.close()
        await sink.open()
        await sink.publish(messages[4:])
    found = await _seqs(stand)
    assert found == {"entry-commit": [1, 2, 3], "process-list-event": [5]}


async def test_small_messages_whose_batch_no_longer_fits_are_all_sent_and_in_order(
    kafka_stand: KafkaStand,
) -> None:
    """The first batch is refused for its size, those behind it for their sequence numbers."""
    stand, maker = kafka_stand, Maker(45)
    # Six are a batch; of the larger ones two are more than a batch takes.
    sizes = [1_000] * 7 + [4_200] * 3
    messages = rendered([maker.reveal(size) for size in sizes])
    async with opened(stand.sink(batch_bytes=_BATCH)) as sink:
        await sink.publish(messages[:1])
        await _lower(stand, 10_000)
        assert await sink.publish(messages[1:]) == 0
    assert (await _seqs(stand))["entry-reveal"] == list(range(1, 11))


async def test_after_a_refusal_the_new_limit_is_known(kafka_stand: KafkaStand) -> None:
    stand, maker = kafka_stand, Maker(46)
    messages = rendered([maker.reveal(1_000) for _ in range(20)])
    async with opened(stand.sink(batch_bytes=_BATCH)) as sink:
        await _lower(stand, 10_000)
        await sink.publish(messages)
        assert sink.limit(messages[0].kind) == 10_000
