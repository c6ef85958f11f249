"""The simulated node's faults: what they strike, and that all else stays as it is."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter

import pytest

from bridge.core.framing import split_frames
from bridge.core.verify import verify
from bridge.emitter.archive import Archive
from bridge.emitter.block import Load
from bridge.emitter.chain import Chain
from bridge.emitter.config import Broadcast, LiveFeedConfig
from bridge.emitter.faults import Dialler, Faults
from bridge.emitter.line import Line
from bridge.emitter.node import Node, Outlet
from bridge.emitter.sender import writes
from bridge.errors import UsageError
from bridge.pb.eventmessages.factomEvents_pb2 import (
    EntityState,
    EventSource,
)
from tests.support.waiting import during, until
from tests.unit.emitter.simulated import START, Queue, ran, told


async def test_drops_are_a_share() -> None:
    whole, less = await ran(60), await ran(60, "drop=20%")
    assert len(less.events) == pytest.approx(0.8 * len(whole.events), rel=0.05)


async def test_a_share_of_what_comes_in_beside_the_writes_is_rejected_and_in_no_block() -> None:
    load = Load(chains=2, entries=40)
    plain, mixed = await ran(20, load=load), await ran(20, "reject=25%", load=load)
    # The chain is the same, byte for byte.
    assert plain.blocks == mixed.blocks
    rejected, unpaid = Counter[str](), set[bytes]()
    requested: list[bytes] = []
    for event in mixed.events:
        kind = told(event)
        if kind in ("chainCommit", "entryCommit"):
            commit = event.chainCommit if kind == "chainCommit" else event.entryCommit
            if commit.entityState == EntityState.REQUESTED:
                requested.append(commit.entryHash)
            if commit.entityState == EntityState.REJECTED:
                assert requested[-1] == commit.entryHash
                rejected[kind] += 1
                unpaid.add(commit.entryHash)
    assert rejected.total() == pytest.approx(0.25 * 20 * 42, rel=0.25)
    assert rejected["chainCommit"] > 0
    listed = {
        getattr(each, name).entryHash
        for block in mixed.blocks
        for each in block.entryCreditBlock.entries
        for name in ("chainCommit", "entryCommit")
        if each.HasField(name)
    }
    assert not unpaid & listed


async def test_a_rejection_is_a_change_of_state_where_those_are_sent() -> None:
    """Source: feed.md 4: StateChange instead of a repeated commit or reveal."""
    config = LiveFeedConfig(enabled=True, send_state_change=True)
    queue = await ran(9, "reject=100", config=config)
    states = Counter(e.stateChange.entityState for e in queue.events if e.HasField("stateChange"))
    # Of every write there is a commit and a reveal, of either fate.
    assert states[EntityState.REJECTED] == states[EntityState.ACCEPTED] > 0
    always = LiveFeedConfig(enabled=True, broadcast_content=Broadcast.ALWAYS)
    queue = await ran(9, "reject=100", config=always)
    states = Counter(e.entryReveal.entityState for e in queue.events if e.HasField("entryReveal"))
    assert states[EntityState.REJECTED] == states[EntityState.ACCEPTED] > 0


async def test_drops_strike_every_kind_and_leave_the_chain_as_it_is() -> None:
    archive = Archive()
    less = await ran(60, "drop=30", archive=archive)
    whole = await ran(60)
    kinds = [Counter(each.split()[0] for each in queue.told) for queue in (less, whole)]
    assert kinds[0].keys() == kinds[1].keys()
    for kind in ("chainCommit", "entryCommit", "entryReveal", "block", "minute"):
        assert 0 < kinds[0][kind] < kinds[1][kind]
    for block in whole.blocks:
        height = block.directoryBlock.header.blockHeight
        saved = archive.at(height)
        assert saved is not None
        assert saved.directory.hashes().key_merkle_root == block.directoryBlock.keyMerkleRoot


async def test_replays_change_nothing_of_what_else_is_dropped() -> None:
    async def live(*replayed: int) -> list[bytes]:
        queue, archive, faults = Queue(), Archive(), Faults.parse("drop=30")
        node = Node(
            Chain(1),
            Outlet(queue, faults, 1),
            start=START,
            block_seconds=0,
            faults=faults,
            archive=archive,
        )
        async with during(node.replays()):
            await node.run(3)
            for height in replayed:
                node.replay(height, height)
            await until(lambda: len(queue.events) > 0)
            await asyncio.sleep(0.01)
            await node.run(3)
        events = [e for e in queue.events if e.eventSource == EventSource.LIVE]
        return [event.SerializeToString() for event in events]

    assert await live() == await live(*[1, 2, 3] * 5)


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
    [
        *("nonsense", "drop", "drop=x", "drop=101", "reject=101", "cut=60,stall=1@41", "stall=3"),
        *("dark=3", "lose=-1", f"lose={'9' * 5_000}", f"drop={'1' * 5_000}"),
    ],
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


async def test_a_stall_strikes_no_version_byte_whatever_the_size_of_the_event() -> None:
    """The rest of an event can be one byte, too."""
    payloads = [b"x" * size for size in (4_093, 4_093, 1, 9_000, 0)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(5)
        port = receiver.getsockname()[1]
        config = LiveFeedConfig(enabled=True, protocol="udp", port=port)
        line = await Dialler(Faults.parse("stall=0@100"), seed=1)(config)
        sizes = []
        for payload in payloads:
            for number, piece in enumerate(writes(payload)):
                await line.write(piece)
                # The second write is the one that is halved.
                count = 2 if number == 1 else 1
                sizes.append([len(receiver.recv(65_536)) for _ in range(count)])
        line.close()
    assert sizes == [
        *([1], [2_048, 2_048], [1]),
        *([1], [2_048, 2_048], [1]),
        *([1], [2, 3]),
        *([1], [2_048, 2_048], [4_908]),
        *([1], [2, 2]),
    ]
