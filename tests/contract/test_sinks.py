"""What every sink promises (`bridge/ports.py`), against real brokers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import unquote

import pytest

from bridge.core.claim import claim_check, size
from bridge.errors import MessageRefused, SinkUnavailable
from bridge.model import Message
from bridge.ports import Sink
from tests.brokers.process import Broker
from tests.contract.stand import EPOCH, Stand, opened, rendered
from tests.support.consumers import Read
from tests.support.maker import Maker

pytestmark = [
    pytest.mark.brokers,
    # A client that is given up leaves its socket to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

_CLOSE_SECONDS = 2
_AGAIN_SECONDS = 3
_SLACK_SECONDS = 1
"""For a machine that does other things too."""


def _commits(number: int, seed: int = 1) -> list[Message]:
    maker = Maker(seed)
    return rendered([maker.commit() for _ in range(number)])


def _reveals(*sizes: int) -> list[Message]:
    maker = Maker(2)
    return rendered([maker.reveal(size) for size in sizes])


def _ids(messages: list[Read] | list[Message]) -> list[str]:
    return [message.id for message in messages]


def _assert_equal(read: Read, sent: Message, stand: Stand) -> None:
    attributes = dict(read.attributes)
    if stand.keeps_repeats:
        attributes["datacontenttype"] = read.headers["content-type"]
        assert read.key == sent.key
    else:
        attributes = {name: unquote(value) for name, value in attributes.items()}
        assert read.headers["Nats-Msg-Id"] == sent.id
    assert read.data == sent.data
    assert attributes == sent.attributes
    assert read.headers["bridge-epoch"] == EPOCH
    assert read.headers["bridge-seq"] == str(sent.seq)


async def test_what_was_prepared_is_there_once(stand: Stand) -> None:
    sent = _commits(40)
    first, second, third, fourth = sent[:10], sent[10:20], sent[20:30], sent[30:]
    sink = stand.sink()
    async with opened(sink):
        await sink.prepare(first)
        await sink.publish(first)
        await sink.publish(second)
        # It may be there already when the sink is closed.
        await sink.prepare(third)
        await sink.prepare(fourth)
    async with opened(sink):
        await sink.publish(third)
        await sink.publish(fourth)
    assert _ids(await stand.read()) == _ids(sent)


async def test_what_is_sent_is_read_back_equal_and_in_order(stand: Stand) -> None:
    maker = Maker()
    sent = rendered(
        [
            *(maker.mix() for _ in range(1500)),
            maker.chain_commit(),
            maker.minute(),
            maker.block(30_000),
            maker.reveal(200_000),
            maker.reveal(0),
        ]
    )
    async with opened(stand.sink()) as sink:
        for part in (sent[:1], sent[1:900], sent[900:]):
            assert await sink.publish(part) == 0
    read = await stand.read()
    assert len(read) == len(sent)
    for place, expected in stand.places(sent):
        there = [message for message in read if message.place.startswith(place)]
        assert _ids(there) == _ids(expected)
        for one, other in zip(there, expected, strict=True):
            _assert_equal(one, other, stand)


async def test_nothing_to_send_is_sent_at_once(stand: Stand) -> None:
    async with opened(stand.sink()) as sink:
        assert await sink.publish([]) == 0
    assert await stand.read() == []


async def test_an_id_sent_twice_is_told_as_a_duplicate_or_is_there_twice(stand: Stand) -> None:
    messages = _commits(5)
    old, new = messages[:2], messages[2:]
    async with opened(stand.sink()) as sink:
        assert await sink.publish(old) == 0
        again = await sink.publish(old[:1])
    # One that has just been opened knows nothing of before: the broker tells.
    async with opened(stand.sink()) as sink:
        among = await sink.publish([new[0], old[0], new[1], old[1], new[2]])
        twice = await sink.publish([new[2], new[2]])
    read = _ids(await stand.read())
    if stand.keeps_repeats:
        assert (again, among, twice) == (0, 0, 0)
        repeated = [new[0], old[0], new[1], old[1], new[2], new[2], new[2]]
        assert read == _ids([*old, old[0], *repeated])
    else:
        assert (again, among, twice) == (1, 2, 2)
        assert read == _ids([*old, *new])


async def test_a_block_sent_again_among_new_messages_costs_no_order(stand: Stand) -> None:
    messages = _commits(700)
    async with opened(stand.sink()) as sink:
        await sink.publish(messages[200:300])
    async with opened(stand.sink()) as sink:
        duplicates = await sink.publish(messages)
    read = _ids(await stand.read())
    if stand.keeps_repeats:
        assert read == _ids(messages[200:300] + messages)
    else:
        assert duplicates == 100
        assert read == _ids(messages[200:300] + messages[:200] + messages[300:])


async def test_what_the_broker_has_already_is_sent_again_quickly(stand: Stand) -> None:
    """After a crash that is all since the last checkpoint: the feed must not wait behind it."""
    messages = _commits(2_000)
    async with opened(stand.sink()) as sink:
        await sink.publish(messages)
    async with opened(stand.sink()) as sink:
        began = time.monotonic()
        duplicates = await sink.publish(messages)
        assert time.monotonic() - began < _AGAIN_SECONDS
    assert duplicates == (0 if stand.keeps_repeats else len(messages))


async def test_a_message_over_the_limit_is_set_aside_and_its_claim_check_sent(
    stand: Stand,
) -> None:
    async with opened(stand.sink()) as sink:
        (before, after) = _reveals(10, 20)
        limit = sink.limit(before.kind)
        (large,) = _reveals(limit)
        assert size(large) > limit
        reference = await sink.set_aside(large)
        again = await sink.set_aside(large)
        claim = claim_check(large, again)
        await sink.publish([before, claim, after])
    assert await stand.fetch(reference) == large.data
    assert await stand.fetch(again) == large.data
    read = await stand.read()
    assert _ids(read) == _ids([before, large, after])
    assert read[1].data == b""
    assert read[1].attributes["dataref"] in {again, again.replace(",", "%2C")}
    assert read[1].attributes["datasize"] == str(len(large.data))


async def test_a_message_just_within_the_limit_is_sent_whole(stand: Stand) -> None:
    async with opened(stand.sink()) as sink:
        (small,) = _reveals(100)
        # JSON has two digits a byte.
        (large,) = _reveals((sink.limit(small.kind) - 8_000) // 2)
        assert sink.limit(small.kind) - 10_000 < size(large) <= sink.limit(small.kind)
        await sink.publish([small, large])
    assert [message.data for message in await stand.read()] == [small.data, large.data]


async def test_a_message_over_a_limit_lowered_meanwhile_is_refused_alone(stand: Stand) -> None:
    messages = _reveals(1_000, 1_000, 30_000, 1_000)
    async with opened(stand.sink(**_uncompressed(stand))) as sink:
        await sink.publish(messages[:1])
        await stand.limit_messages(20_000)
        with pytest.raises(MessageRefused) as caught:
            await sink.publish(messages[1:])
    assert caught.value.position == 1
    async with opened(stand.sink(**_uncompressed(stand))) as sink:
        assert sink.limit(messages[0].kind) == 20_000
        await sink.publish(messages[3:])
    read = [message.id for message in await stand.read()]
    assert list(dict.fromkeys(read)) == _ids([messages[0], messages[1], messages[3]])


def _uncompressed(stand: Stand) -> dict[str, str]:
    return {"compression": "none"} if stand.keeps_repeats else {}


@asynccontextmanager
async def _away(broker: Broker, *, hangs: bool) -> AsyncIterator[None]:
    """Have `broker` dead, or alive and answering nothing, during the body."""
    if hangs:
        broker.pause()
    else:
        broker.kill()
    try:
        yield
    finally:
        if hangs:
            broker.resume()
        else:
            await asyncio.to_thread(broker.start)


async def _close_in_time(sink: Sink) -> None:
    began = time.monotonic()
    await sink.close()
    assert time.monotonic() - began < _CLOSE_SECONDS + _SLACK_SECONDS


@pytest.mark.parametrize("hangs", [False, True], ids=["dead", "hanging"])
async def test_a_broker_that_is_away_when_opening_is_unavailable_within_the_timeout(
    stand: Stand, hangs: bool
) -> None:
    sink = stand.sink(timeout_seconds=2)
    async with _away(stand.broker, hangs=hangs):
        began = time.monotonic()
        with pytest.raises(SinkUnavailable):
            await sink.open()
        assert time.monotonic() - began < 2 + _SLACK_SECONDS
        await _close_in_time(sink)
    async with opened(sink):
        await sink.publish(_commits(1))


@pytest.mark.parametrize("hangs", [False, True], ids=["dead", "hanging"])
async def test_after_the_broker_was_away_everything_can_be_sent_again(
    stand: Stand, hangs: bool
) -> None:
    messages = _commits(300)
    sink = stand.sink(timeout_seconds=3)
    await sink.open()
    await sink.publish(messages[:100])
    async with _away(stand.broker, hangs=hangs):
        began = time.monotonic()
        with pytest.raises(SinkUnavailable):
            await sink.publish(messages[100:200])
        assert time.monotonic() - began < 3 + _CLOSE_SECONDS + _SLACK_SECONDS
        await _close_in_time(sink)
    await _open_patiently(sink)
    await sink.publish(messages[100:])
    await _close_in_time(sink)
    read = [message.id for message in await stand.read()]
    assert list(dict.fromkeys(read)) == _ids(messages)
    assert stand.keeps_repeats or len(read) == len(messages)


async def _open_patiently(sink: Sink) -> None:
    """Open as the lane does: again and again."""
    async with asyncio.timeout(30):
        while True:
            try:
                await sink.open()
            except SinkUnavailable:
                await sink.close()
                await asyncio.sleep(0.1)
            else:
                return


async def test_publishing_that_is_cancelled_can_be_done_again(stand: Stand) -> None:
    messages = _commits(2_000)
    sink = stand.sink()
    await sink.open()
    sending = asyncio.create_task(sink.publish(messages))
    await asyncio.sleep(0.005)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    await _close_in_time(sink)
    async with opened(sink):
        await sink.publish(messages)
    read = [message.id for message in await stand.read()]
    assert list(dict.fromkeys(read)) == _ids(messages)


async def test_closing_does_no_harm_in_any_state(stand: Stand) -> None:
    sink = stand.sink()
    await _close_in_time(sink)
    await sink.open()
    await _close_in_time(sink)
    await _close_in_time(sink)
    with pytest.raises(SinkUnavailable):
        await sink.publish(_commits(1))


async def test_setting_aside_on_a_broker_that_died_is_unavailable(stand: Stand) -> None:
    (large,) = _reveals(100_000)
    sink = stand.sink(timeout_seconds=2)
    await sink.open()
    async with _away(stand.broker, hangs=False):
        with pytest.raises(SinkUnavailable):
            await sink.set_aside(large)
        await _close_in_time(sink)
