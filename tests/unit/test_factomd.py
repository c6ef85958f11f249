"""The double of a node holds what recorded nodes did, and lies as it is told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from bridge.core.binary.directory import DirectoryBlock
from bridge.core.framing import split_frames
from bridge.core.rebuild import RawHeight, rebuild
from bridge.core.verify import verify
from bridge.errors import DecodeError, NodeRefused
from bridge.node import NodeApi, open_node
from bridge.pb.eventmessages.factomEvents_pb2 import DirectoryBlockCommit, FactomEvent
from tests.support.captures import find_capture
from tests.support.factomd import Factomd, Hostile
from tests.support.heights import API_CAPTURES

FAST = 1_000_000


class Receiver:
    """Keeps what is sent to it over one connection."""

    def __init__(self) -> None:
        self.begun, self.ended = asyncio.Event(), asyncio.Event()
        self._stream = bytearray()

    @property
    def payloads(self) -> list[bytes]:
        return [payload for _, payload in split_frames(bytes(self._stream))]

    @property
    def blocks(self) -> list[DirectoryBlockCommit]:
        events = map(FactomEvent.FromString, self.payloads)
        return [
            event.directoryBlockCommit for event in events if event.HasField("directoryBlockCommit")
        ]

    @property
    def heights(self) -> list[int]:
        return [block.directoryBlock.header.blockHeight for block in self.blocks]

    async def read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.begun.set()
        while chunk := await reader.read(65_536):
            self._stream += chunk
        writer.close()
        self.ended.set()


@asynccontextmanager
async def asking(factomd: Factomd, *settings: str) -> AsyncIterator[tuple[NodeApi, Receiver]]:
    """Yield a client, and a receiver that has all when the context has ended."""
    receiver = Receiver()
    async with await asyncio.start_server(receiver.read, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with (
            factomd.serve() as url,
            open_node(url, FAST) as node,
            factomd.feeding(port, *settings),
        ):
            await receiver.begun.wait()
            yield node, receiver
            await factomd.replayed()
        await receiver.ended.wait()


async def sent(factomd: Factomd, first: int, last: int) -> list[int]:
    """Return the heights that a replay sends."""
    async with asking(factomd) as (node, receiver):
        await node.replay(first, last)
    return receiver.heights


@pytest.mark.parametrize("name", API_CAPTURES)
async def test_every_recorded_call_is_answered_as_recorded(name: str) -> None:
    factomd = Factomd.of_capture(name)
    capture = find_capture(name)
    assert capture is not None
    async with factomd.serve() as url, aiohttp.ClientSession() as session:
        for line in (capture.folder / "api.jsonl").read_text(encoding="utf-8").splitlines():
            call = json.loads(line)
            asked: Any = {"jsonrpc": "2.0", "id": call["answer"]["id"], "method": call["method"]}
            body = json.dumps(asked | {"params": call["params"]})
            async with session.post(
                url, data="{" if call["method"] == "malformed" else body
            ) as got:
                assert got.status == call["http"], line[:200]
                assert got.headers["Content-Type"] == call["content_type"]
                assert json.loads(await got.read()) == call["answer"], line[:200]
    assert factomd.requests["malformed"] == 1


@pytest.mark.parametrize(
    ("name", "pages", "settings"),
    [
        ("backfill-api", [(0, 141)], ["EventBroadcastContent=always"]),
        ("gap-api-replay", [(3, 12), (13, 30)], []),
    ],
)
async def test_a_replay_is_byte_for_byte_what_the_recorded_feed_has(
    name: str, pages: list[tuple[int, int]], settings: list[str]
) -> None:
    factomd = Factomd.of_capture(name)
    capture = find_capture(name)
    assert capture is not None
    async with asking(factomd, *settings) as (node, receiver):
        for page in pages:
            await node.replay(*page)
    replayed = []
    for payload in capture.payloads():
        event = FactomEvent.FromString(payload)
        if event.HasField("directoryBlockCommit") and event.eventSource:
            replayed.append(payload)
    assert receiver.payloads == replayed
    assert factomd.replays == pages


async def test_a_replay_is_clipped_and_0_means_the_tip() -> None:
    factomd = Factomd.of_chain(4)
    factomd.unsaved = True
    async with asking(factomd) as (node, receiver):
        await node.replay(1, 5_000)
        await node._call("replay-from-height", startheight=2, endheight=0)
    assert factomd.replays == [(1, 1_001), (2, 4)]
    # The last one that is named is not saved.
    assert receiver.heights == [1, 2, 3, 2, 3]


async def test_a_replay_stops_at_a_block_that_cannot_be_read() -> None:
    factomd = Factomd.of_chain(8)
    factomd.unreadable.add(4)
    assert await sent(factomd, 2, 7) == [2, 3]
    async with factomd.serve() as url, open_node(url) as node:
        with pytest.raises(NodeRefused) as caught:
            await node.parts(4)
        assert caught.value.not_found
        with pytest.raises(NodeRefused):
            await node.raw(factomd.block(4).credit.hashes().header_hash)
        assert await node.parts(5)


@pytest.mark.parametrize(
    ("attribute", "value", "heights"),
    [("silent_replay", True, []), ("not_synced", True, []), ("lost", {2, 3}, [1, 4])],
)
async def test_what_is_asked_for_may_not_come(
    attribute: str, value: object, heights: list[int]
) -> None:
    factomd = Factomd.of_chain(5)
    setattr(factomd, attribute, value)
    assert await sent(factomd, 1, 4) == heights
    assert factomd.replays == [(1, 4)]


async def test_the_tip_may_fall_back_and_grow() -> None:
    factomd = Factomd.of_chain(6)
    factomd.tip = 3
    assert await sent(factomd, 2, 5) == [2, 3]
    factomd.tip = 5
    assert await sent(factomd, 2, 5) == [2, 3, 4, 5]


async def test_live_blocks_come_without_entry_blocks() -> None:
    factomd = Factomd.of_chain(6)
    async with asking(factomd) as (node, receiver):
        await factomd.live(4, 5)
        await node.replay(4, 4)
    live, _, replayed = receiver.blocks
    assert receiver.heights == [4, 5, 4]
    assert not live.entryBlocks
    assert len(replayed.entryBlocks) == len(factomd.block(4).entry_blocks) > 0
    assert live.directoryBlock == replayed.directoryBlock


async def test_a_chain_has_a_thousand_blocks_of_mixed_size() -> None:
    factomd = Factomd.of_chain(1_000)
    assert len(await sent(factomd, 0, 999)) == 1_000
    assert {len(factomd.block(height).entries) for height in range(1, 26)} == set(range(25))


async def test_it_answers_in_turn_as_it_is_told_to() -> None:
    factomd = Factomd.of_chain(3)
    factomd.behave(Hostile.HIGH_TIP, None)
    async with factomd.serve() as url, open_node(url) as node:
        assert [await node.tip() for _ in range(4)] == [2**32 - 1, 2, 2**32 - 1, 2]
    assert factomd.requests == {"heights": 4}


async def raw(node: NodeApi, height: int) -> RawHeight:
    parts = await node.parts(height)
    listed = DirectoryBlock.parse(parts[0]).entry_blocks
    return RawHeight(*parts, tuple([await node.raw(each.key) for each in listed]))


async def test_lies_are_blocks_that_a_client_must_find_out() -> None:
    factomd = Factomd.of_chain(9)
    true = {height: factomd.block(height).directory.hashes() for height in range(9)}
    async with factomd.serve() as url, open_node(url, FAST) as node:
        factomd.behave(Hostile.REPARENTED)
        alone = [rebuild(await raw(node, height)) for height in (4, 5)]
        factomd.behave(Hostile.OTHER_CHAIN)
        chain = [rebuild(await raw(node, height)) for height in (4, 5)]
        factomd.behave(Hostile.OTHER_HEIGHT)
        other = DirectoryBlock.parse((await node.parts(4))[0])
        key = factomd.block(4).directory.entry_blocks[0].key
        assert await node.raw(key) != factomd.block(4).entry_blocks[0].raw
        factomd.behave(Hostile.FORGED_CREDITS)
        with pytest.raises(DecodeError, match="entry-credit"):
            rebuild(await raw(node, 4))
    for told in (*alone, *chain):
        assert verify(told.message).holds
        assert told.links.key_merkle_root != true[told.links.height].key_merkle_root
    assert not verify(alone[1].message, alone[0].links).holds
    assert verify(chain[1].message, chain[0].links).holds
    assert other.height == 5


async def test_replays_lie_too() -> None:
    factomd = Factomd.of_chain(4)
    async with asking(factomd) as (node, receiver):
        below = rebuild(await raw(node, 1)).links
        for mode in (Hostile.FORGED_CREDITS, Hostile.REPARENTED, None):
            factomd.behave(mode)
            await node.replay(2, 2)
    forged, reparented, true = (verify(block, below) for block in receiver.blocks)
    assert [each.check for each in forged.failures] == ["entry-credit-block"]
    assert [each.check for each in reparented.failures][:1] == ["previous-key-merkle-root"]
    assert true.holds
