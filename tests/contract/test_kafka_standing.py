"""How Kafka stands to what it acknowledged: nothing is sent twice, and nothing stays lost."""

from __future__ import annotations

import pytest

from bridge.errors import SinkUnavailable
from bridge.model import Message, Tail
from bridge.sinks.kafka import KafkaSink
from tests.brokers.kafka import KafkaBroker
from tests.contract.stand import KafkaStand, kafka_admin, opened, rendered
from tests.support.maker import Maker

pytestmark = pytest.mark.brokers


async def _ours(_tail: Tail) -> bool:
    return True


async def _theirs(_tail: Tail) -> bool:
    return False


def _messages(number: int) -> list[Message]:
    """Return some of several kinds, so that they lie in several topics."""
    maker = Maker(3)
    made = [maker.commit, maker.chain_commit, maker.minute]
    return rendered([made[place % 3]() for place in range(number)])


async def _ids(stand: KafkaStand) -> list[str]:
    return sorted(message.id for message in await stand.read())


@pytest.mark.parametrize("partitions", [1, 3])
async def test_what_was_acknowledged_behind_the_checkpoint_is_not_sent_again(
    kafka: KafkaBroker, partitions: int
) -> None:
    stand, messages = KafkaStand(kafka), _messages(90)
    async with opened(stand.sink(partitions=partitions)) as sink:
        await sink.publish(messages[:70])
    # A crash came before the checkpoint: a new process knows of nothing after 40.
    async with opened(stand.sink(partitions=partitions)) as sink:
        standing = await sink.standing(None, _ours)
        assert (standing.tail, standing.lost) == (None, False)
        assert await sink.publish(messages[40:60]) == 20
        assert await sink.publish(messages[60:]) == 10
        assert await sink.publish(messages[:1]) == 0, "it is asked about its tail once"
    assert await _ids(stand) == sorted([m.id for m in messages] + [messages[0].id])


async def test_what_another_journal_brought_is_nothing_to_go_by(kafka: KafkaBroker) -> None:
    stand, messages = KafkaStand(kafka), _messages(9)
    async with opened(stand.sink()) as sink:
        await sink.publish(messages)
    other = KafkaSink(stand.sink()._settings, stand.routes, "another epoch")  # type: ignore[attr-defined]
    for sink, ours in ((other, _ours), (stand.sink(), _theirs)):
        async with opened(sink):
            await sink.standing(None, ours)
            assert await sink.publish(messages) == 0
    assert len(await stand.read()) == 27


async def test_what_takes_the_place_of_a_lost_message_is_no_proof_of_those_before_it(
    kafka: KafkaBroker,
) -> None:
    stand, maker = KafkaStand(kafka), Maker(4)
    messages = rendered([maker.commit() for _ in range(9)])
    async with opened(stand.sink()) as sink:
        await sink.publish(messages[:6])
        mark = sink.mark
        async with kafka_admin(kafka) as admin:
            await admin.delete_topics([f"{stand.prefix}.entry-commit"])
        async with opened(stand.sink()):
            pass  # makes it anew
        # The client does not notice that the log is another one.
        with pytest.raises(SinkUnavailable, match="lost"):
            await sink.publish(messages[6:8])
        await sink.close()
        await sink.open()
        standing = await sink.standing(mark, _ours)
        assert (standing.tail, standing.lost) == (None, True)
        await sink.publish(messages)
    found = {message.id for message in await stand.read()}
    assert found == {message.id for message in messages}


async def test_a_topic_that_was_made_anew_is_told_as_a_loss_and_filled_alone(
    kafka: KafkaBroker,
) -> None:
    stand, messages = KafkaStand(kafka), _messages(9)
    async with opened(stand.sink()) as sink:
        await sink.publish(messages)
        mark = sink.mark
    async with kafka_admin(kafka) as admin:
        await admin.delete_topics([f"{stand.prefix}.entry-commit"])
    async with opened(stand.sink()) as sink:
        standing = await sink.standing(mark, _ours)
        assert (standing.tail, standing.lost) == (None, True)
        assert await sink.publish(messages) == 6
        assert (await sink.standing(sink.mark, _ours)).lost is False
    assert await _ids(stand) == sorted(message.id for message in messages)
