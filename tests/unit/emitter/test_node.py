"""The simulated node: order and pace of what it tells, replays, and faults."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import pairwise

import pytest

from bridge.core.framing import split_frames
from bridge.core.verify import Links, verify
from bridge.emitter.archive import Archive
from bridge.emitter.block import Load
from bridge.emitter.chain import Chain
from bridge.emitter.config import Broadcast, LiveFeedConfig
from bridge.emitter.faults import Dialler, Faults
from bridge.emitter.line import Line
from bridge.emitter.node import Node, Outlet
from bridge.emitter.sender import Sender
from bridge.emitter.simulation import feed_config
from bridge.errors import UsageError
from bridge.pb.eventmessages.factomEvents_pb2 import DirectoryBlockCommit, EventSource, FactomEvent
from tests.support.captures import find_capture
from tests.support.waiting import during, until

START = 1_767_225_600_000


class Queue(Sender):
    """A sender that sends nothing and keeps everything."""

    def __init__(self, config: LiveFeedConfig | None = None) -> None:
        super().__init__(config or LiveFeedConfig(enabled=True))
        self.events: list[FactomEvent] = []
        self.waited: list[bool] = []

    def offer(self, event: FactomEvent | bytes, /) -> bool:
        self._keep([event], waits=False)
        return True

    async def feed(self, events: Iterable[FactomEvent | bytes]) -> None:
        self._keep(events, waits=True)

    def _keep(self, events: Iterable[FactomEvent | bytes], *, waits: bool) -> None:
        for event in events:
            assert isinstance(event, FactomEvent)
            self.events.append(event)
            self.waited.append(waits)

    @property
    def told(self) -> list[str]:
        return [told(event) for event in self.events]

    @property
    def blocks(self) -> list[DirectoryBlockCommit]:
        return [
            event.directoryBlockCommit
            for event in self.events
            if event.HasField("directoryBlockCommit")
        ]

    @property
    def heights(self) -> list[int]:
        return [block.directoryBlock.header.blockHeight for block in self.blocks]


def told(event: FactomEvent) -> str:
    """Return what `event` is about: its kind, and heights and minutes."""
    kind = event.WhichOneof("event") or "nothing"
    match kind:
        case "directoryBlockCommit":
            return f"block {event.directoryBlockCommit.directoryBlock.header.blockHeight}"
        case "directoryBlockAnchor":
            return f"anchor {event.directoryBlockAnchor.blockHeight}"
        case "processListEvent":
            begun = event.processListEvent
            if begun.HasField("newBlockEvent"):
                return f"new {begun.newBlockEvent.newBlockHeight}"
            return f"minute {begun.newMinuteEvent.blockHeight}/{begun.newMinuteEvent.newMinute}"
    return kind


async def ran(
    blocks: int,
    *faults: str,
    config: LiveFeedConfig | None = None,
    first: int = 0,
    seed: int = 1,
    archive: Archive | None = None,
    load: Load | None = None,
) -> Queue:
    queue, chosen = Queue(config), Faults.parse(*faults)
    node = Node(
        Chain(seed, first=first, load=load),
        Outlet(queue, chosen, seed),
        start=START,
        block_seconds=0,
        faults=chosen,
        archive=archive,
    )
    await node.run(blocks)
    return queue


def structure(events: Iterable[str]) -> list[str]:
    return [each for each in events if each.split()[0] in ("block", "new", "minute")]


# Order


async def test_blocks_and_minutes_come_in_the_order_of_a_recorded_node() -> None:
    capture = find_capture("gap-api")
    if capture is None:
        pytest.skip("the recordings are not on this machine")
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
    assert [each for each in queue.told if each.startswith("anchor")] == [
        f"anchor {height}" for height in range(29)
    ]


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


# Faults


async def test_drops_are_a_share() -> None:
    whole, less = await ran(60), await ran(60, "drop=20%")
    assert len(less.events) == pytest.approx(0.8 * len(whole.events), rel=0.05)


async def test_a_lost_block_is_not_sent_and_all_else_is() -> None:
    whole, less = (await ran(9)).told, (await ran(9, "lose=4", "lose=6")).told
    assert [each for each in whole if each not in ("block 4", "block 6")] == less


async def test_in_the_dark_nothing_is_sent() -> None:
    queue = await ran(9, "dark=4+2")
    assert queue.heights == [1, 2, 3, 6, 7, 8, 9]
    assert "new 4" not in queue.told
    assert "minute 5/10" not in queue.told
    assert "new 6" in queue.told


async def test_a_fork_is_the_same_height_with_another_key_that_holds() -> None:
    queue = await ran(5, "fork=3")
    assert queue.heights == [1, 2, 3, 3, 4, 5]
    true, forked = queue.blocks[2:4]
    assert verify(true).holds
    assert verify(forked).holds
    assert true.directoryBlock.keyMerkleRoot != forked.directoryBlock.keyMerkleRoot


async def test_forged_heights_and_another_network() -> None:
    queue = await ran(5, "forge=3,network=4")
    assert queue.heights == [1, 2, 3, 3 + 2**30, 4, 4, 5]
    networks = [block.directoryBlock.header.networkID for block in queue.blocks]
    assert networks.count(0xFA92E5A2) == 1
    assert networks[5] == 0xFA92E5A2


@pytest.mark.parametrize(
    "text",
    ["nonsense", "drop", "drop=x", "drop=101", "cut=60,stall=1@41", "stall=3", "dark=3", "lose=-1"],
)
def test_faults_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Faults.parse(text)


def test_faults_are_joined_by_commas_or_given_one_by_one() -> None:
    joined = Faults.parse("drop=2%,stall=3s@1%, lose=7")
    assert joined == Faults.parse("drop=2", "stall=3@1", "", "lose=7")
    assert Faults.parse() == Faults()


class Ends:
    """A receiver that keeps the bytes of each connection."""

    def __init__(self) -> None:
        self.streams: list[bytearray] = []

    async def receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = bytearray()
        self.streams.append(stream)
        while data := await reader.read(65_536):
            stream += data
        writer.close()


async def halved(fault: str) -> tuple[list[bytes], list[bytearray], Dialler]:
    """Send frames over a line that has the fault, again where it broke."""
    ends = Ends()
    server = await asyncio.start_server(ends.receive, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    config = LiveFeedConfig(enabled=True, port=port)
    dialler = Dialler(Faults.parse(fault), seed=2)
    line: Line = await dialler(config)
    payloads = [bytes([at]) * 50 for at in range(40)]
    for payload in payloads:
        while True:
            try:
                await line.write(b"\x01")
                await line.write(len(payload).to_bytes(4, "little") + payload)
            except ConnectionResetError:
                line.close()
                line = await dialler(config)
            else:
                break
    line.close()
    async with server:
        await until(lambda: sum(map(len, ends.streams)) >= 55 * len(payloads))
        await asyncio.sleep(0.05)
    return payloads, ends.streams, dialler


async def test_a_cut_leaves_half_a_frame_and_the_frame_comes_whole_on_the_next_connection() -> None:
    payloads, streams, dialler = await halved("cut=20")
    assert dialler.answered
    assert len(streams) > 3
    found = []
    for stream in streams:
        whole = len(stream) // 55 * 55
        found += [payload for _, payload in split_frames(bytes(stream[:whole]))]
    assert found == payloads
    assert all(len(stream) % 55 for stream in streams[:-1])


async def test_a_stall_delays_half_a_frame_and_loses_nothing() -> None:
    payloads, streams, _ = await halved("stall=0.01@30")
    assert [payload for _, payload in split_frames(bytes(streams[0]))] == payloads


# The command line


def test_settings_of_the_feed_go_by_the_nodes_names() -> None:
    config = feed_config("::1", 8040, ["EventFormat=JSON", "eventbroadcastcontent=always"])
    assert (config.enabled, config.host, config.port) == (True, "::1", 8040)
    assert (config.format, config.broadcast_content) == ("json", Broadcast.ALWAYS)
    assert feed_config("h", 1, ["EventFormat=nonsense"]).format == "protobuf"
    with pytest.raises(UsageError):
        feed_config("h", 1, ["EventNonsense=1"])
