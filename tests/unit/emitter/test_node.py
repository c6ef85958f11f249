"""The simulated node: order and pace of what it tells, and replays."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import pairwise

import pytest

from bridge.core.verify import Links, verify
from bridge.emitter.archive import Archive
from bridge.emitter.block import Load
from bridge.emitter.chain import Chain
from bridge.emitter.config import Broadcast, LiveFeedConfig
from bridge.emitter.faults import Faults
from bridge.emitter.node import Node, Outlet
from bridge.emitter.simulation import feed_config
from bridge.errors import UsageError
from bridge.pb.eventmessages.factomEvents_pb2 import (
    EventSource,
    FactomEvent,
)
from tests.support.captures import find_capture, not_here
from tests.support.waiting import during, until
from tests.unit.emitter.simulated import START, Queue, ran, told


def structure(events: Iterable[str]) -> list[str]:
    return [each for each in events if each.split()[0] in ("block", "new", "minute")]


# Order


async def test_blocks_and_minutes_come_in_the_order_of_a_recorded_node() -> None:
    capture = find_capture("gap-api")
    if capture is None:
        not_here("gap-api")
    recorded = [told(FactomEvent.FromString(payload)) for payload in capture.payloads()]
    recorded = structure(recorded)
    until_three = recorded[: recorded.index("block 3") + 2]
    assert until_three[-1] == "new 4"
    assert structure((await ran(3)).told) == until_three


async def test_what_is_written_in_the_first_minute_comes_before_the_last_block_is_saved() -> None:
    queue = await ran(12, load=Load(chains=0, entries=200))
    for minute, block in pairwise(
        at for at, each in enumerate(queue.told) if each.startswith(("minute", "block"))
    ):
        if queue.told[block].startswith("block"):
            between = queue.told[minute + 1 : block]
            # Not of the first block, which opens the chains, nor after the last.
            assert "entryCommit" in between or queue.told[block] == "block 12"


async def test_an_entry_is_paid_for_then_revealed_each_requested_then_accepted() -> None:
    queue = await ran(1, load=Load(chains=1, entries=0))
    written = [each for each in queue.told if "ommit" in each or each in ("entryReveal", "nothing")]
    # By default the acceptance of a reveal is an event without a member.
    assert written == ["chainCommit", "chainCommit", "entryReveal", "nothing"]
    states = [event.chainCommit.entityState for event in queue.events if told(event) == written[0]]
    assert states == [0, 1]


async def test_settings_of_the_feed_decide_what_is_in_the_events() -> None:
    config = LiveFeedConfig(enabled=True, send_state_change=True, broadcast_content=Broadcast.NEVER)
    queue = await ran(3, config=config)
    assert "entryReveal" not in queue.told
    assert "nothing" not in queue.told
    assert "stateChange" in queue.told


async def test_blocks_hold_and_link_and_earlier_ones_are_anchored() -> None:
    queue = await ran(30)
    links = None
    for block in queue.blocks:
        found = verify(block, links)
        assert found.holds
        links = found.links
    assert queue.heights == list(range(1, 31))
    anchors = [e.directoryBlockAnchor for e in queue.events if e.HasField("directoryBlockAnchor")]
    # A block that closes a window changes its record once more: it is in Ethereum then, too.
    expected = [(height, last) for height in range(29) for last in (False, True)]
    expected = [(height, last) for height, last in expected if not last or height % 10 == 0]
    assert [(a.blockHeight, a.ethereumConfirmed) for a in anchors] == expected
    assert all(anchor.btcConfirmed for anchor in anchors)
    assert {len(anchor.ethereumAnchorRecordEntryHash) for anchor in anchors} == {32}


async def test_a_chain_that_begins_higher_is_told_from_there() -> None:
    queue = await ran(3, first=500_000)
    assert queue.heights == [500_000, 500_001, 500_002]
    assert structure(queue.told)[0] == "new 500000"


async def test_the_same_seed_gives_the_same_events() -> None:
    first, again, other = [
        [event.SerializeToString() for event in (await ran(9, "drop=10", seed=seed)).events]
        for seed in (4, 4, 5)
    ]
    assert first == again
    assert first != other


# Pace


class Hours:
    """A clock that passes when someone sleeps by it."""

    def __init__(self) -> None:
        self.now = START / 1000
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


@pytest.mark.parametrize("block_seconds", [600.0, 15.0, 0.5])
async def test_blocks_take_the_time_that_is_asked_for(block_seconds: float) -> None:
    hours, queue = Hours(), Queue()
    node = Node(
        Chain(1),
        Outlet(queue, Faults(), 1),
        start=START,
        block_seconds=block_seconds,
        clock=hours,
        sleep=hours.sleep,
    )
    await node.run(3)
    # Three blocks, and the minute in which the third is saved.
    assert hours.now - START / 1000 == pytest.approx(block_seconds * 3.1, rel=1e-6)
    assert max(hours.slept) <= block_seconds / 10 + 0.001
    assert not any(queue.waited)


async def test_as_fast_as_possible_waits_for_room_and_drops_nothing() -> None:
    assert all((await ran(5)).waited)


# Replays


async def test_a_replay_sends_blocks_again_whole_and_stops_at_what_is_not_there() -> None:
    queue, archive = Queue(), Archive()
    node = Node(Chain(1), Outlet(queue, Faults(), 1), start=START, block_seconds=0, archive=archive)
    await node.run(6)
    queue.events.clear()
    async with during(node.replays()):
        node.replay(0, 2)
        node.replay(5, 9)
        node.replay(1, 1)
        await until(lambda: len(queue.events) == 6)
    assert queue.heights == [0, 1, 2, 5, 6, 1]
    assert {event.eventSource for event in queue.events} == {EventSource.REPLAY_BOOT}
    links: Links | None = None
    for block in queue.blocks[:3]:
        assert block.directoryBlock.header.blockHeight == 0 or block.entryBlocks
        found = verify(block, links)
        assert found.holds
        links = found.links


# The command line


def test_settings_of_the_feed_go_by_the_nodes_names() -> None:
    config = feed_config("::1", 8040, ["EventFormat=JSON", "eventbroadcastcontent=always"])
    assert (config.enabled, config.host, config.port) == (True, "::1", 8040)
    assert (config.format, config.broadcast_content) == ("json", Broadcast.ALWAYS)
    assert feed_config("h", 1, ["EventFormat=nonsense"]).format == "protobuf"
    with pytest.raises(UsageError):
        feed_config("h", 1, ["EventNonsense=1"])
