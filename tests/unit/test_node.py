"""The node's API client, against a real HTTP server that answers as a node does, or should not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from bridge.core.rebuild import RawHeight, rebuild
from bridge.errors import BridgeError, NodeRefused, NodeUnavailable
from bridge.node import NodeApi, open_node
from tests.support.factomd import Factomd
from tests.support.hostile import SPOILT, WITHOUT_ANSWER, Hostile

Ask = Callable[[NodeApi], Awaitable[object]]

FAST = 1_000_000
CALLS: dict[str, Ask] = {
    "tip": lambda node: node.tip(),
    "parts": lambda node: node.parts(2),
    "raw": lambda node: node.raw(bytes(32)),
    "replay": lambda node: node.replay(1, 2),
}


@pytest.mark.parametrize(
    ("first", "last", "end"), [(4, 26, 26), (0, 0, 1), (7, 7, 7)], ids=["page", "genesis", "one"]
)
async def test_it_asks_for_replays_as_the_node_understands(first: int, last: int, end: int) -> None:
    factomd = Factomd.of_chain(1)
    async with factomd.serve() as url, open_node(url) as node:
        await node.replay(first, last)
    assert factomd.replays == [(first, end)]


async def test_the_tip_is_the_last_block_saved() -> None:
    factomd = Factomd.of_chain(5)
    async with factomd.serve() as url, open_node(url) as node:
        assert await node.tip() == 4
        factomd.tip = 2
        assert await node.tip() == 2


async def test_the_parts_of_a_height_are_those_from_which_it_is_rebuilt() -> None:
    factomd = Factomd.of_chain(12)
    async with factomd.serve() as url, open_node(url, FAST) as node:
        for height in factomd.heights:
            block = factomd.block(height)
            keys = [each.key for each in block.directory.entry_blocks]
            raw = RawHeight(*await node.parts(height), tuple([await node.raw(key) for key in keys]))
            assert rebuild(raw).links.height == height
            contents = {each.hash(): await node.raw(each.hash()) for each in block.entries}
            told = rebuild(raw, contents).message.entryBlockEntries
            assert [each.hash for each in told] == [each.hash() for each in block.entries]
    assert factomd.requests["dblock-by-height"] == len(factomd.heights)


async def test_what_the_node_has_not_is_told_apart_from_what_it_refuses() -> None:
    factomd = Factomd.of_chain(3)
    async with factomd.serve() as url, open_node(url) as node:
        for ask in (node.parts(3), node.raw(bytes(32))):
            with pytest.raises(NodeRefused, match="not found") as missing:
                await ask
            assert missing.value.not_found
        with pytest.raises(NodeRefused, match="Invalid params: Invalid Block Height") as refused:
            await node.replay(5, 3)
        assert (refused.value.number, refused.value.not_found) == (-32602, False)


async def test_at_most_four_requests_are_on_their_way() -> None:
    factomd = Factomd.of_chain(6)
    factomd.delay = 0.02
    async with factomd.serve() as url, open_node(url, FAST) as node:
        await asyncio.gather(*map(node.parts, factomd.heights))
    assert factomd.most_at_once == 4


async def test_requests_are_evenly_paced() -> None:
    async with Factomd.of_chain(2).serve() as url, open_node(url, 50) as node:
        began = time.monotonic()
        ends = []
        for height in (0, 1):
            await node.parts(height)
            ends.append(time.monotonic() - began)
        await node.tip()
        ends.append(time.monotonic() - began)
    # Turns 4, 8 and 9, of which the first was at 0.
    for end, least in zip(ends, (0.06, 0.14, 0.16), strict=True):
        assert end >= least - 0.005


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with Factomd.of_chain(1).serve() as url, open_node(url) as node:
        assert await node.tip() == 0


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("mode", WITHOUT_ANSWER, ids=str)
async def test_what_is_no_answer_is_told_as_such(mode: Hostile, call: str) -> None:
    factomd = Factomd.of_chain(3)
    factomd.behave(mode)
    async with factomd.serve() as url, open_node(url, FAST, total_seconds=0.5) as node:
        with pytest.raises(NodeUnavailable) as caught:
            async with asyncio.timeout(10):
                await CALLS[call](node)
        assert_sentence(caught.value)
        # Nothing is followed; what is only read is tried again, once.
        assert set(factomd.requests.values()) <= ({1, 2} if call in {"parts", "raw"} else {1})
        factomd.behave()
        assert await node.tip() == 2


REFUSALS = {Hostile.LONG_ERROR, Hostile.DEEP_ERROR}
HARMLESS = {Hostile.HUGE_NUMBERS: {"parts", "raw"}, Hostile.WRONG_HEX: {"tip"}}
SPOILT_CALLS = [
    (mode, call) for mode in SPOILT for call in CALLS if call not in HARMLESS.get(mode, ())
]


@pytest.mark.parametrize(("mode", "call"), SPOILT_CALLS, ids=str)
async def test_an_answer_that_is_spoilt_is_told_as_such(mode: Hostile, call: str) -> None:
    factomd = Factomd.of_chain(3)
    factomd.behave(mode)
    async with factomd.serve() as url, open_node(url, FAST) as node:
        with pytest.raises(NodeRefused if mode in REFUSALS else NodeUnavailable) as caught:
            await CALLS[call](node)
        assert_sentence(caught.value)
        factomd.behave()
        assert await node.tip() == 2


def assert_sentence(error: BridgeError) -> None:
    """It may stand in a log and on a terminal, whoever made it up."""
    assert len(str(error)) < 700
    assert str(error).isprintable()


async def test_a_node_that_fails_now_and_then_gives_a_height_all_the_same() -> None:
    factomd = Factomd.of_chain(3)
    factomd.behave(Hostile.RESET, None, None, None, None)
    async with factomd.serve() as url, open_node(url, FAST) as node:
        for _ in range(3):
            directory, *_ = await node.parts(1)
            assert directory == factomd.block(1).directory.raw


async def test_a_call_that_fails_leaves_nothing_behind_of_its_height() -> None:
    factomd = Factomd.of_chain(3)
    factomd.behave(Hostile.RESET)
    async with factomd.serve() as url, open_node(url, FAST) as node:
        for _ in range(3):
            with pytest.raises(NodeUnavailable):
                await node.parts(1)
        factomd.behave()
        directory, *_ = await node.parts(1)
    assert directory == factomd.block(1).directory.raw


async def test_an_answer_too_large_is_not_read_to_its_end() -> None:
    factomd = Factomd.of_chain(1)
    factomd.behave(Hostile.ENDLESS)
    async with factomd.serve() as url, open_node(url) as node:
        with pytest.raises(NodeUnavailable, match="more than 32 MiB"):
            await node.tip()


async def test_an_answer_of_too_many_parts_is_not_taken_apart() -> None:
    factomd = Factomd.of_chain(1)
    factomd.behave(Hostile.MANY_PARTS)
    async with factomd.serve() as url, open_node(url) as node:
        with pytest.raises(NodeUnavailable, match="more than 500,000 parts"):
            await node.tip()


@pytest.mark.parametrize("tip", [-1, 2**32])
async def test_a_tip_that_no_chain_can_have_is_none(tip: int) -> None:
    factomd = Factomd.of_chain(1)
    factomd.tip = tip
    async with factomd.serve() as url, open_node(url) as node:
        with pytest.raises(NodeUnavailable, match="none can be"):
            await node.tip()


async def test_nothing_is_decompressed() -> None:
    factomd = Factomd.of_chain(1)
    factomd.behave(Hostile.GZIP_BOMB, Hostile.GZIP)
    async with factomd.serve() as url, open_node(url) as node:
        for _ in range(2):
            with pytest.raises(NodeUnavailable, match="no JSON"):
                await node.tip()


async def test_compression_is_not_asked_for() -> None:
    factomd = Factomd.of_chain(1)
    factomd.compresses = True
    async with factomd.serve() as url, open_node(url) as node:
        assert await node.tip() == 0


async def test_an_error_of_a_proxy_is_told_by_its_number() -> None:
    factomd = Factomd.of_chain(1)
    factomd.behave(Hostile.HTML)
    async with factomd.serve() as url, open_node(url) as node:
        with pytest.raises(NodeUnavailable, match="HTTP status 502"):
            await node.tip()


async def test_a_node_that_is_away_is_told_as_such() -> None:
    async with open_node("http://127.0.0.1:1/v2") as node:
        with pytest.raises(NodeUnavailable):
            await asyncio.wait_for(node.tip(), 10)
