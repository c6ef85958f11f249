"""`stages.fetch`: what the node answers is believed when it is proven, and not before."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

import pytest

from bridge.core.binary.directory import ADMIN_CHAIN, DirectoryBlock, Listed
from bridge.core.binary.entries import Entry, EntryBlock
from bridge.core.rebuild import RawHeight, rebuild, reveals
from bridge.core.verify import Links
from bridge.errors import DecodeError, NodeRefused, NodeUnavailable
from bridge.metrics import Metrics
from bridge.pb.eventmessages.factomEvents_pb2 import EventSource, FactomEvent
from bridge.stages.fetch import Fetch, proof_of_missing, proof_of_present
from tests.support.heights import RecordedHeight, extract
from tests.support.scripted_node import ScriptedNode, chain
from tests.support.waiting import during, until

CHAIN = chain()
LINKS = [rebuild(each.raw).links for each in CHAIN]
KEYS = [each.key_merkle_root for each in LINKS]


class Bench:
    def __init__(self, heights: Iterable[RecordedHeight] = CHAIN) -> None:
        self.node, self.metrics = ScriptedNode(heights), Metrics()
        self.time = asyncio.Event()
        self.time.set()
        self.fetch = Fetch(self.node, self.metrics, self.ready)
        self.pieces: list[list[bytes]] = []

    async def ready(self) -> None:
        await self.time.wait()

    async def put(self, payloads: list[bytes]) -> None:
        self.pieces.append(payloads)

    async def block(
        self, height: int, *, above: bytes | None = None, below: Links | None = None
    ) -> FactomEvent:
        payload = await self.fetch.block(height, proof_of_missing(height, above, below), below)
        return FactomEvent.FromString(payload)

    async def reveals(self, height: int, wanted: Iterable[bytes]) -> list[FactomEvent]:
        prove = proof_of_present(height, lambda height, key: key == KEYS[height])
        try:
            await self.fetch.reveals(height, prove, wanted, self.put)
        finally:
            payloads = [payload for piece in self.pieces for payload in piece]
            self.revealed = [FactomEvent.FromString(payload) for payload in payloads]
        return self.revealed

    def refused(self, reason: str) -> float:
        return self.sample("bridge_backfill_refused_total", reason=reason)

    def sample(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0


def made_up(height: int, **changes: object) -> RawHeight:
    """Return the height with another directory block, of which every hash holds."""
    raw = CHAIN[height].raw
    directory = replace(DirectoryBlock.parse(raw.directory), **changes)  # type: ignore[arg-type]
    return replace(raw, directory=directory.raw)


def key_of(raw: RawHeight) -> bytes:
    return DirectoryBlock.parse(raw.directory).hashes().key_merkle_root


# Blocks


@pytest.mark.parametrize("recorded", extract(), ids=lambda each: f"{each.capture}-{each.height}")
async def test_a_block_is_the_one_that_the_node_would_have_replayed(
    recorded: RecordedHeight,
) -> None:
    bench = Bench([recorded])
    event = await bench.block(recorded.height, above=key_of(recorded.raw))
    assert event.eventSource == EventSource.REPLAY_BOOT
    member = event.directoryBlockCommit
    assert member == rebuild(recorded.raw).message
    for replayed in recorded.events:
        # Recorded with the entries' contents, or live and without entry blocks.
        if recorded.capture == "gap-api-replay" and replayed.eventSource:
            told = replayed.directoryBlockCommit.SerializeToString()
            assert member.SerializeToString() == told


async def test_a_block_is_proven_by_the_one_above_or_the_one_below() -> None:
    assert (await Bench().block(4, above=KEYS[4])).HasField("directoryBlockCommit")
    assert (await Bench().block(4, below=LINKS[3])).HasField("directoryBlockCommit")
    assert (await Bench().block(4, above=KEYS[4], below=LINKS[3])).ByteSize()


async def test_the_first_block_of_all_needs_no_neighbour() -> None:
    assert (await Bench().block(0)).HasField("directoryBlockCommit")


async def test_a_first_block_that_names_one_before_it_is_refused() -> None:
    bench = Bench()
    bench.node.heights[0] = made_up(0, previous_full_hash=bytes([1]) * 32)
    with pytest.raises(DecodeError, match="does not name the one below"):
        await bench.block(0)


async def refuse(bench: Bench, reason: str, *, above: bytes | None, below: Links | None) -> None:
    with pytest.raises(DecodeError) as caught:
        await bench.block(4, above=above, below=below)
    assert caught.value.reason == reason
    assert bench.refused(reason) == 1
    assert bench.node.asked == [4], "more was asked for, though the directory was not believed"


async def test_another_height_than_asked_for_is_refused() -> None:
    bench = Bench()
    bench.node.heights[4] = CHAIN[3].raw
    await refuse(bench, "other-height", above=None, below=LINKS[3])


async def test_a_block_that_the_one_above_does_not_name_is_refused() -> None:
    bench = Bench()
    bench.node.heights[4] = made_up(4, minutes=1)
    await refuse(bench, "other-key", above=KEYS[4], below=LINKS[3])


async def test_a_block_that_does_not_name_the_one_below_is_refused() -> None:
    bench = Bench()
    bench.node.heights[4] = made_up(4, previous_key_merkle_root=KEYS[2])
    await refuse(bench, "unlinked", above=None, below=LINKS[3])


async def test_a_block_between_unknown_ones_is_refused() -> None:
    await refuse(Bench(), "unproven", above=None, below=None)


async def test_what_is_no_block_is_refused() -> None:
    bench = Bench()
    bench.node.heights[4] = replace(CHAIN[4].raw, directory=b"\0" * 500)
    await refuse(bench, "invalid-binary", above=KEYS[4], below=None)


async def test_a_part_of_another_height_is_refused() -> None:
    bench = Bench()
    bench.node.heights[4] = replace(CHAIN[4].raw, credit=CHAIN[3].raw.credit)
    with pytest.raises(DecodeError):
        await bench.block(4, above=KEYS[4])
    assert bench.refused("hash-mismatch") == 1


async def test_a_part_of_another_height_is_refused_though_it_is_listed() -> None:
    directory = DirectoryBlock.parse(CHAIN[4].raw.directory)
    other = DirectoryBlock.parse(CHAIN[3].raw.directory).key_of(ADMIN_CHAIN)
    assert other is not None
    listed = (Listed(ADMIN_CHAIN, other), *directory.listed[1:])
    lie = replace(made_up(4, listed=listed), admin=CHAIN[3].raw.admin)
    bench = Bench()
    bench.node.heights[4] = lie
    with pytest.raises(DecodeError, match="height is 3"):
        await bench.block(4, below=LINKS[3])
    assert bench.refused("admin-block") == 1


async def test_a_block_of_another_network_is_refused() -> None:
    bench = Bench()
    bench.node.heights[4] = made_up(4, network_id=7)
    with pytest.raises(DecodeError):
        await bench.block(4, below=LINKS[3])
    assert bench.refused("network") == 1


async def test_with_the_first_false_entry_block_no_more_are_asked_for() -> None:
    keys = [bytes([number]) * 32 for number in range(40)]
    listed = DirectoryBlock.parse(CHAIN[4].raw.directory).listed[:3]
    lie = made_up(4, listed=(*listed, *(Listed(key, key) for key in keys)))
    bench = Bench()
    bench.node.heights[4] = lie
    bench.node.parts_by_hash |= dict.fromkeys(keys, CHAIN[4].raw.entry_blocks[0])
    with pytest.raises(DecodeError):
        await bench.block(4, below=LINKS[3])
    assert bench.refused("hash-mismatch") == 1
    assert len(bench.node.asked) == 1 + 4


async def test_entry_blocks_above_8_mib_are_refused() -> None:
    block = EntryBlock(bytes(32), bytes(32), bytes(32), 0, 4, (bytes([1]) * 32,) * 263_000)
    key = block.hashes().key_merkle_root
    listed = DirectoryBlock.parse(CHAIN[4].raw.directory).listed[:3]
    bench = Bench()
    bench.node.heights[4] = made_up(4, listed=(*listed, Listed(block.chain_id, key)))
    bench.node.parts_by_hash[key] = block.raw
    with pytest.raises(DecodeError):
        await bench.block(4, below=LINKS[3])
    assert bench.refused("too-large") == 1


async def test_after_a_failure_half_way_only_what_lacks_is_asked_for() -> None:
    bench = Bench()
    keys = [each.key for each in DirectoryBlock.parse(CHAIN[4].raw.directory).entry_blocks]
    bench.node.away_for = {keys[1]}
    with pytest.raises(NodeUnavailable):
        await bench.block(4, above=KEYS[4])
    bench.node.away_for = set()
    bench.node.asked.clear()
    assert await bench.block(4, above=KEYS[4])
    assert bench.node.asked == [4, keys[1]]


async def test_what_the_node_refuses_is_counted_and_told() -> None:
    bench = Bench()
    del bench.node.heights[4]
    with pytest.raises(NodeRefused):
        await bench.block(4, above=KEYS[4])
    labels = {"way": "api", "outcome": "node_refused"}
    assert bench.sample("bridge_backfill_requests_total", **labels) == 1


async def test_every_request_waits_until_there_is_time() -> None:
    bench = Bench()
    bench.node.before = bench.time.clear
    async with during(bench.block(4, above=KEYS[4])) as task:
        await until(lambda: len(bench.node.asked) == 1)
        await asyncio.sleep(0.02)
        assert bench.node.asked == [4]
        bench.time.set()
        await until(lambda: len(bench.node.asked) == 4)
        assert await task


# Entries


async def test_reveals_are_those_that_any_bridge_would_rebuild() -> None:
    contents = CHAIN[6].contents
    events = await Bench().reveals(6, contents)
    start = DirectoryBlock.parse(CHAIN[6].raw.directory).seconds
    expected = [
        reveal
        for part in CHAIN[6].raw.entry_blocks
        for reveal in reveals(start, EntryBlock.parse(part), contents)
    ]
    assert len(expected) == 40
    assert [event.entryReveal for event in events] == expected
    assert {event.eventSource for event in events} == {EventSource.REPLAY_BOOT}


async def test_only_what_is_wanted_is_asked_for() -> None:
    wanted = sorted(CHAIN[6].contents)[:3]
    bench = Bench()
    events = await bench.reveals(6, wanted)
    assert sorted(event.entryReveal.entry.hash for event in events) == wanted
    assert len(bench.node.asked) == 1 + len(CHAIN[6].raw.entry_blocks) + 3


async def test_entries_of_a_block_just_fetched_need_no_more_than_themselves() -> None:
    bench = Bench()
    await bench.block(6, above=KEYS[6])
    before = len(bench.node.asked)
    await bench.reveals(6, CHAIN[6].contents)
    assert len(bench.node.asked) == before + 40


async def test_a_block_that_is_not_the_one_which_is_there_reveals_nothing() -> None:
    bench = Bench()
    bench.node.heights[6] = made_up(6, minutes=1)
    with pytest.raises(DecodeError):
        await bench.reveals(6, CHAIN[6].contents)
    assert bench.refused("other-key") == 1
    assert bench.node.asked == [6]


async def test_a_false_entry_delays_no_other() -> None:
    bench, wanted = Bench(), sorted(CHAIN[6].contents)
    bench.node.parts_by_hash[wanted[0]] = CHAIN[6].contents[wanted[1]]
    del bench.node.parts_by_hash[wanted[2]]
    with pytest.raises((DecodeError, NodeRefused)):
        await bench.reveals(6, wanted)
    found = sorted(event.entryReveal.entry.hash for event in bench.revealed)
    assert found == [each for each in wanted if each not in {wanted[0], wanted[2]}]
    assert bench.refused("hash-mismatch") == 1


async def test_an_entry_at_which_the_node_goes_away_delays_no_other() -> None:
    bench, wanted = Bench(), sorted(CHAIN[6].contents)
    del bench.node.parts_by_hash[wanted[1]]
    bench.node.away_for = {wanted[0]}
    with pytest.raises(NodeUnavailable):
        await bench.reveals(6, wanted)
    assert len(bench.revealed) == 38


async def test_a_node_that_is_away_is_not_asked_for_every_entry() -> None:
    bench = Bench()
    await bench.block(6, above=KEYS[6])
    before = len(bench.node.asked)
    bench.node.away = True
    with pytest.raises(NodeUnavailable):
        await bench.reveals(6, CHAIN[6].contents)
    assert len(bench.node.asked) - before == 8
    assert bench.pieces == []


async def test_entries_come_in_pieces_of_about_a_mebibyte() -> None:
    entries = [Entry(bytes(32), (), bytes([number]) * 100_000) for number in range(30)]
    hashes = tuple(each.hash() for each in entries)
    block = EntryBlock(bytes(32), bytes(32), bytes(32), 0, 6, hashes)
    key = block.hashes().key_merkle_root
    listed = DirectoryBlock.parse(CHAIN[6].raw.directory).listed[:3]
    bench = Bench()
    bench.node.heights[6] = made_up(6, listed=(*listed, Listed(block.chain_id, key)))
    bench.node.parts_by_hash |= {key: block.raw} | {each.hash(): each.raw for each in entries}
    prove = proof_of_present(6, lambda height, key: True)
    await bench.fetch.reveals(6, prove, hashes, bench.put)
    assert [len(piece) for piece in bench.pieces] == [12, 12, 6]
