"""What goes to JetStream ahead of an acknowledgement: it is stored in order, or not yet."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bridge.core.ways import MOST
from bridge.errors import SinkUnavailable
from bridge.model import Message, Tail
from bridge.ports import Sink
from tests.brokers.nats import NatsBroker
from tests.contract.stand import NatsStand, opened, rendered
from tests.support.consumers import nats_client
from tests.support.maker import Maker

pytestmark = pytest.mark.brokers


def _reveals(number: int, seed: int) -> list[Message]:
    maker = Maker(seed)
    return rendered([maker.reveal(200) for _ in range(number)])


async def _believed(_tail: Tail) -> bool:
    return True


@asynccontextmanager
async def _standing(stand: NatsStand) -> AsyncIterator[Sink]:
    """Yield a sink that knows where the stream ends, as a lane makes it know."""
    async with opened(stand.sink()) as sink:
        await sink.standing(None, _believed)
        yield sink


async def _publish(sink: Sink, lists: list[list[Message]]) -> int:
    """Publish `lists` as a lane does: the next one is prepared while one is under way."""
    duplicates = 0
    under_way: asyncio.Task[int] | None = None
    for messages in lists:
        await sink.prepare(messages)
        if under_way is not None:
            duplicates += await under_way
        under_way = asyncio.create_task(sink.publish(messages))
        # It has begun before the next one is there to be prepared.
        await asyncio.sleep(0)
    assert under_way is not None
    return duplicates + await under_way


async def _ids(stand: NatsStand) -> list[str]:
    return [message.id for message in await stand.read()]


def _ids_of(*lists: list[Message]) -> list[str]:
    return [message.id for messages in lists for message in messages]


@pytest.fixture(params=["atomic", "older server"])
async def nats(request: pytest.FixtureRequest, nats_server: NatsBroker) -> NatsStand:
    stand = NatsStand(nats_server, atomic=request.param == "atomic")
    await stand.prepare()
    return stand


async def test_what_is_prepared_is_stored_once_and_in_order(nats: NatsStand) -> None:
    messages = _reveals(6_000, 1)
    sizes = [1, 300, 5, 1_600, 8, 9, 900, 70, 2, 1_000, 1_001]
    lists, at = [], 0
    for size in [*sizes, len(messages) - sum(sizes)]:
        lists.append(messages[at : at + size])
        at += size
    async with _standing(nats) as sink:
        assert await _publish(sink, lists) == 0
    assert await _ids(nats) == _ids_of(messages)


async def test_what_another_one_writes_in_between_changes_no_order(nats: NatsStand) -> None:
    messages = _reveals(4_000, 2)
    lists = [messages[at : at + 400] for at in range(0, 4_000, 400)]
    async with _standing(nats) as sink, nats_client(nats.broker.url) as client:

        async def write_too() -> None:
            for number in range(1_000):
                await client.jetstream().publish(f"{nats.prefix}.foreign", b"%d" % number)

        writing = asyncio.create_task(write_too())
        await _publish(sink, lists)
        assert not writing.done()
        writing.cancel()
    read = [message.id for message in await nats.read() if "foreign" not in message.place]
    assert read == _ids_of(messages)


async def test_a_list_with_ids_that_are_there_lets_none_behind_it_overtake(
    nats: NatsStand,
) -> None:
    messages = _reveals(1_000, 3)
    before, first, second, third = (
        messages[:100],
        messages[100:400],
        messages[400:700],
        messages[700:],
    )
    async with _standing(nats) as sink:
        await sink.publish(before)
        async with opened(nats.sink()) as another:
            await another.publish(first[100:200])
        # What another one stored is unknown to this sink, and so is sent, and rejected in part.
        await _publish(sink, [first, second, third])
    expected = [*before, *first[100:200], *first[:100], *first[200:], *second, *third]
    assert await _ids(nats) == _ids_of(expected)


async def test_what_waits_because_of_a_known_id_is_not_overtaken(nats: NatsStand) -> None:
    messages = _reveals(500, 4)
    async with _standing(nats) as sink:
        await sink.publish(messages[:100])
        again = [*messages[50:100], *messages[100:300]]
        await sink.prepare(again)
        await sink.prepare(messages[300:])
        assert await sink.publish(again) == 50
        assert await sink.publish(messages[300:]) == 0
    assert await _ids(nats) == _ids_of(messages)


async def test_an_empty_list_is_in_nobodys_way(nats: NatsStand) -> None:
    messages = _reveals(900, 8)
    async with _standing(nats) as sink:
        # What a lane has nothing to send of it does not publish.
        await sink.prepare([])
        lists = [messages[at : at + 100] for at in range(0, 900, 100)]
        assert await _publish(sink, lists) == 0
    assert await _ids(nats) == _ids_of(messages)


async def test_nothing_is_sent_behind_what_a_broken_connection_left(nats: NatsStand) -> None:
    """Else the last message of a list could be there, and let the next list pass, though one is not."""
    maker = Maker(9)
    sizes = [1_000] * 5 + [20_000] + [1_000] * 14
    first, second = rendered([maker.reveal(size) for size in sizes]), _reveals(20, 10)
    second = [message._replace(seq=message.seq + len(first)) for message in second]
    async with opened(nats.sink()):
        pass
    async with nats_client(nats.broker.url) as client:
        jetstream = client.jetstream()
        config = (await jetstream.stream_info(nats.prefix)).config
        await jetstream.update_stream(config.evolve(max_bytes=45_000))
        for _ in range(3):
            async with _standing(nats) as sink:
                assert (await sink.standing(sink.mark, _believed)).tail is None
                await sink.prepare(first)
                publishing = asyncio.create_task(sink.publish(first))
                await asyncio.sleep(0)
                await sink.prepare(second)
                with pytest.raises(SinkUnavailable, match="full"):
                    await publishing
        await jetstream.update_stream(config.evolve(max_bytes=1_000_000))
    async with _standing(nats) as sink:
        await _publish(sink, [first, second])

    assert sorted(await _ids(nats)) == sorted(_ids_of(first, second))
    assert (await _ids(nats))[-len(second) :] == _ids_of(second)


async def test_more_than_is_sent_ahead_at_a_time(nats: NatsStand) -> None:
    messages = _reveals(6 * MOST + 5, 5)
    async with _standing(nats) as sink:
        assert await _publish(sink, [messages[:300], messages[300:6_000], messages[6_000:]]) == 0
    assert await _ids(nats) == _ids_of(messages)


@pytest.mark.parametrize(("sync_interval", "way"), [('"2m"', "chain"), ("always", "atomic")])
async def test_the_faster_way_is_taken(tmp_path: Path, sync_interval: str, way: str) -> None:
    """Where the machine disturbs the trial it is the slower one: one good trial of three is enough."""
    messages = _reveals(8_000, 6)
    lists = [messages[at : at + 800] for at in range(0, 8_000, 800)]
    found: list[str] = []
    with NatsBroker(tmp_path, sync_interval=sync_interval) as broker:
        while len(found) < 3 and way not in found:
            stand = NatsStand(broker, atomic=True)
            async with _standing(stand) as sink:
                await _publish(sink, lists)
            read = await stand.read()
            assert [message.id for message in read] == _ids_of(messages)
            ways = Counter("Nats-Batch-Id" in message.headers for message in read)
            # The first list is no chain; half of the second one is tried as one, and the other half not.
            assert ways[True] in {1_200, 7_600}
            found.append("chain" if ways[True] == 1_200 else "atomic")
    assert way in found
