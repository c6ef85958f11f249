"""`emitter.sender`: tries, darkness, queue and counters, in a time that the test moves."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from bridge.core.framing import split_frames
from bridge.emitter.config import LiveFeedConfig
from bridge.emitter.counters import DROPPED, NOT_SENT
from bridge.emitter.sender import Sender, Timing, writes
from bridge.pb.eventmessages.factomEvents_pb2 import FactomEvent
from tests.unit.emitter.network import Weather, frames, running, settled

CONFIG = LiveFeedConfig(enabled=True)
PERSISTENT = LiveFeedConfig(enabled=True, persistent_reconnect=True)


def sender_in(weather: Weather, config: LiveFeedConfig = CONFIG, **options: Any) -> Sender:
    return Sender(config, clock=weather.clock, sleep=weather.sleep, dial=weather.dial, **options)


@pytest.mark.parametrize(
    ("size", "sizes"),
    [
        (0, [1, 4]),
        (1, [1, 5]),
        (4092, [1, 4096]),
        (4093, [1, 4096, 1]),
        (99_999, [1, 4096, 95_907]),
    ],
)
def test_an_event_is_written_in_the_nodes_writes(size: int, sizes: list[int]) -> None:
    """Source: feed.md 2, TCP and UDP."""
    payload = b"x" * size
    pieces = list(writes(payload))
    assert [len(piece) for piece in pieces] == sizes
    assert b"".join(pieces) == frames([payload])


async def test_events_arrive_in_order_in_the_format_configured() -> None:
    event = FactomEvent(nodeMessage={"messageText": "<"})
    for config, first in (
        (CONFIG, event.SerializeToString()),
        (
            LiveFeedConfig(format="json"),
            b'{"Event":{"nodeMessage":{"messageText":"\\u003c"}}}',
        ),
    ):
        weather = Weather((0, 99))
        sender = sender_in(weather, config)
        async with running(sender):
            assert sender.offer(event)
            assert sender.offer(b"built before")
            await settled()
        assert weather.connections[0].stream == frames([first, b"built before"])


async def test_three_tries_ten_seconds_apart_then_five_minutes_of_darkness() -> None:
    """Source: feed.md 3; a node that finds no receiver at its start behaves the same."""
    weather = Weather((35, 10_000))
    sender = sender_in(weather)
    async with running(sender):
        assert weather.refusals == [0]
        await weather.pass_to(2)
        sender.offer(b"first")
        await weather.pass_to(31.9)
        assert weather.refusals == [0, 2, 12, 22]
        assert sender.counters.not_sent == 0
        await weather.pass_to(40)
        assert sender.counters.not_sent == 1
        # The receiver is back, and is not asked.
        for moment in range(40, 332, 4):
            await weather.pass_to(moment)
            sender.offer(b"in the dark")
            await settled()
        assert weather.connections == []
        assert sender.counters.not_sent == 1 + 73
        await weather.pass_to(332)
        sender.offer(b"still dark, to the second")
        await weather.pass_to(332.5)
        sender.offer(b"light")
        await settled()
        sender.offer(b"more")
        await settled()
    assert [c.stream for c in weather.connections] == [frames([b"light", b"more"])]
    assert sender.counters.not_sent == 75
    assert sender.counters.dropped == 0


async def test_a_receiver_back_by_the_third_try_loses_nothing() -> None:
    weather = Weather((0, 10), (25, 1000))
    sender = sender_in(weather)
    async with running(sender):
        sender.offer(b"before")
        await weather.pass_to(11)
        for number in range(100):
            sender.offer(b"%d" % number)
        await weather.pass_to(40)
        await settled()
    first, second = weather.connections
    # The version byte of the event that found the broken connection went nowhere.
    assert (first.stream, second.opened) == (frames([b"before"]), 31)
    assert second.stream == frames([b"%d" % number for number in range(100)])
    assert (sender.counters.not_sent, sender.counters.dropped) == (0, 0)


async def test_persistent_reconnect_never_gives_up() -> None:
    weather = Weather((0, 10), (5000, 9000))
    sender = sender_in(weather, PERSISTENT)
    async with running(sender):
        await weather.pass_to(11)
        for number in range(5100):
            sender.offer(b"%d" % number)
            if number == 0:
                await settled()
        assert sender.counters.dropped == 5100 - 1 - 5000
        await weather.pass_to(5002)
        await settled()
    # Tried every ten seconds: at 11 (broken), then refused at 21, 31, ...
    assert len(weather.refusals) == 498
    assert weather.connections[1].stream == frames([b"%d" % n for n in range(5001)])
    assert sender.counters.not_sent == 0


async def test_the_full_queue_drops_the_newest() -> None:
    weather = Weather()
    sender = sender_in(weather, queue_events=3)
    assert [sender.offer(b"%d" % number) for number in range(5)] == [True] * 3 + [False] * 2
    assert (sender.waiting, sender.counters.dropped) == (3, 2)


def numbered(thread: int, count: int) -> list[bytes]:
    return [b"%d %d" % (thread, number) for number in range(count)]


def from_threads(sender: Sender, threads: int, count: int) -> list[threading.Thread]:
    """Start threads that offer so many events each."""

    def offer(thread: int) -> None:
        for payload in numbered(thread, count):
            sender.offer(payload)

    started = [threading.Thread(target=offer, args=(each,)) for each in range(threads)]
    for thread in started:
        thread.start()
    return started


async def test_events_of_other_threads_are_sent_each_threads_in_its_order() -> None:
    weather = Weather((0, 100))
    sender = sender_in(weather, queue_events=100_000)
    async with running(sender), asyncio.timeout(20):
        threads = from_threads(sender, threads=4, count=5_000)
        # The loop's own thread offers as well.
        for payload in numbered(9, 5_000):
            sender.offer(payload)
        for thread in threads:
            await asyncio.to_thread(thread.join)
        await sender.drain()
        sent = [payload for _, payload in split_frames(weather.connections[0].stream)]
    for thread_number in (0, 1, 2, 3, 9):
        mine = [each for each in sent if each.startswith(b"%d " % thread_number)]
        assert mine == numbered(thread_number, 5_000)
    assert len(sent) == 25_000


async def test_a_sender_that_sleeps_is_woken_by_another_thread_each_time() -> None:
    weather = Weather((0, 100))
    sender = sender_in(weather)
    async with running(sender), asyncio.timeout(20):
        for number in range(200):
            await asyncio.to_thread(sender.offer, b"%d" % number)
            await sender.drain()
            assert weather.connections[0].stream.endswith(b"%d" % number)


async def test_a_full_queue_drops_and_counts_exactly_what_threads_offer_beyond_it() -> None:
    sender = sender_in(Weather(), queue_events=1_000)
    for thread in from_threads(sender, threads=4, count=5_000):
        await asyncio.to_thread(thread.join)
    assert (sender.waiting, sender.counters.dropped) == (1_000, 19_000)


def test_a_thread_may_offer_before_the_loop_runs_and_after_it_is_closed() -> None:
    weather = Weather((0, 100))
    sender = sender_in(weather)

    async def run_for_a_while() -> None:
        async with running(sender):
            await sender.drain()

    sender.offer(b"before")
    with asyncio.Runner() as runner:
        runner.run(run_for_a_while())
    for thread in from_threads(sender, threads=1, count=3):
        thread.join()
    assert weather.connections[0].stream == frames([b"before"])
    assert sender.waiting == 3


async def test_what_a_thread_queues_while_all_is_idle_is_waited_for() -> None:
    weather = Weather((0, 100))
    sender = sender_in(weather)
    async with running(sender):
        sender.offer(b"first")
        await sender.drain()
        (thread,) = from_threads(sender, threads=1, count=10)
        thread.join()
        # Nothing has run on the loop since.
        await sender.drain()
        assert sender.waiting == 0
        assert weather.connections[0].stream == frames([b"first", *numbered(0, 10)])


async def test_feeding_waits_for_room_and_drops_nothing() -> None:
    weather = Weather((0, 100))
    sender = sender_in(weather, queue_events=7)
    payloads = [b"%d" % number for number in range(1000)]
    async with running(sender), asyncio.timeout(5):
        await sender.feed(payloads)
        await sender.drain()
    assert weather.connections[0].stream == frames(payloads)
    assert sender.counters.dropped == 0


async def test_what_has_gathered_is_written_at_once_where_that_is_wanted() -> None:
    weather = Weather((0, 10), (15, 1000))
    sender = Sender(
        CONFIG, coalesce=True, clock=weather.clock, sleep=weather.sleep, dial=weather.dial
    )
    payloads = [b"%d" % number for number in range(50)]
    async with running(sender):
        await sender.feed(payloads)
        await sender.drain()
        assert weather.connections[0].writes == [frames(payloads)]
    udp = Sender(LiveFeedConfig(protocol="udp"), coalesce=True, dial=weather.dial)
    async with running(udp):
        await udp.feed(payloads)
        await udp.drain()
    assert len(weather.connections[1].writes) == 100


async def test_an_event_too_large_for_udp_is_tried_three_times_and_darkens_the_feed() -> None:
    """Source: feed.md 2, UDP; recording udp-replay-always."""
    weather = Weather((0, 9999), udp=True)
    sender = sender_in(weather, LiveFeedConfig(protocol="udp"))
    large = b"x" * 70_000
    async with running(sender):
        sender.offer(large)
        sender.offer(b"after")
        await weather.pass_to(100)
        await settled()
    assert [[len(w) for w in c.writes] for c in weather.connections] == [[1, 4096]] * 3
    assert [c.opened for c in weather.connections] == [0, 10, 20]
    assert sender.counters.not_sent == 2


async def test_a_receivers_name_that_is_no_name_is_a_receiver_that_is_not_there() -> None:
    config = LiveFeedConfig(enabled=True, host="a" * 64 + ".example")
    sender = Sender(config, timing=Timing(tries=1, retry_seconds=0))
    async with running(sender), asyncio.timeout(10):
        sender.offer(b"lost")
        await sender.drain()
        assert sender.counters.not_sent == 1


def test_the_counters_are_exported_by_their_documented_names() -> None:
    """Source: feed.md 3, names; factomd's documentation."""
    sender = Sender(CONFIG, queue_events=1)
    registry = CollectorRegistry()
    registry.register(sender.counters)
    sender.offer(b"")
    sender.offer(b"")
    sender.counters.not_sent = 3
    assert registry.get_sample_value("factomd_livefeed_dropped_from_queue_counter") == 1
    assert registry.get_sample_value("factomd_livefeed_not_send_counter") == 3
    lines = generate_latest(registry).decode().splitlines()
    assert {f"{DROPPED} 1.0", f"{NOT_SENT} 3.0"} <= set(lines)
