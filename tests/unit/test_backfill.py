"""`stages.backfill`: following what is missing until it is there."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest

from bridge.core.binary.directory import DirectoryBlock
from bridge.core.binary.entries import EntryBlock
from bridge.core.framing import split_frames
from bridge.core.rebuild import rebuild
from bridge.core.verify import Links, verify
from bridge.errors import NodeUnavailable, StorageFull
from bridge.metrics import Metrics
from bridge.model import Asked, Note, RecordType, Sought, Tip, Unobtainable, Way
from bridge.pb.eventmessages.factomEvents_pb2 import FactomEvent
from bridge.stages.backfill import Backfill
from tests.doubles import MemoryJournal
from tests.support.scripted_node import ScriptedNode, chain
from tests.support.waiting import during, until

CHAIN = chain()
LINKS = [rebuild(each.raw).links for each in CHAIN]
ALL = set(range(7))


def entries_of(height: int) -> set[bytes]:
    parts = map(EntryBlock.parse, CHAIN[height].raw.entry_blocks)
    return {hash_ for block in parts for hash_ in block.entry_hashes()}


class Known:
    """What the tracker would know: it reads the journal when it is asked to catch up."""

    def __init__(self, journal: MemoryJournal, missing: set[int], blind: set[int]) -> None:
        self.journal = journal
        self.gone = missing
        self.unknown = blind
        self.entries: dict[int, set[bytes]] = {}
        self.knows_below = True
        self.takes_nothing = False
        self.notes: list[Note] = []
        self.seen: list[bytes] = []
        self.caught = 0
        self._read = 0

    def missing(self) -> Sequence[tuple[int, int]]:
        ranges: list[tuple[int, int]] = []
        for height in sorted(self.gone):
            if ranges and ranges[-1][1] == height - 1:
                ranges[-1] = (ranges[-1][0], height)
            else:
                ranges.append((height, height))
        return ranges

    def links_below(self, height: int) -> Links | None:
        is_there = 0 <= height - 1 < len(LINKS) and height - 1 not in self.gone
        return LINKS[height - 1] if is_there and self.knows_below else None

    def key_above(self, height: int) -> bytes | None:
        is_there = height + 1 < len(LINKS) and height + 1 not in self.gone
        return LINKS[height].key_merkle_root if is_there else None

    def agrees(self, height: int, key: bytes) -> bool:
        return height not in self.gone and LINKS[height].key_merkle_root == key

    def blind(self, most: int) -> list[int]:
        return sorted(self.unknown)[:most]

    def wanting(self, most: int) -> list[int]:
        return sorted(height for height, hashes in self.entries.items() if hashes)[:most]

    def missing_entries(self, height: int) -> tuple[bytes, ...]:
        return tuple(sorted(self.entries.get(height, ())))

    def tell(self, note: Note) -> None:
        self.notes.append(note)

    async def caught_up(self) -> None:
        await asyncio.sleep(0)
        self.caught += 1
        for group in await self.journal.read(self._read, 2**30):
            self._read = group.last
            for run in group.runs:
                for type_, payload in split_frames(run.frames):
                    assert type_ == RecordType.FEED
                    self._take(int(run.peer.removeprefix("api/")), payload)

    def came(self, height: int) -> None:
        self.gone.discard(height)

    def _take(self, height: int, payload: bytes) -> None:
        assert payload not in self.seen, "appended twice"
        self.seen.append(payload)
        event = FactomEvent.FromString(payload)
        if event.HasField("entryReveal"):
            self.entries[height].discard(event.entryReveal.entry.hash)
            return
        found = verify(event.directoryBlockCommit, self.links_below(height))
        assert found.holds
        assert found.links is not None
        key = found.links.key_merkle_root
        assert key == LINKS[height].key_merkle_root, "a block that is not the true one"
        if self.takes_nothing:
            return
        if height in self.gone:
            self.gone.remove(height)
        self.unknown.discard(height)
        self.entries[height] = entries_of(height)


class Bench:
    """A chain of which something is missing, a node that has all of it, and the stage."""

    def __init__(
        self,
        missing: set[int] | None = None,
        *,
        blind: set[int] | None = None,
        replays: bool = False,
        page: int = 20,
        backfill_from: int | None = None,
        receipts: bool = False,
        heights_seconds: float = 60,
        longest: float = 0.004,
    ) -> None:
        self.journal, self.metrics = MemoryJournal(), Metrics()
        self.node = ScriptedNode(CHAIN)
        self.known = Known(self.journal, missing or set(), blind or set())
        if replays:
            self.node.sends = self.known.came
        self.busy = False
        self.page, self.receipts, self.longest = page, receipts, longest
        self.backfill_from, self.heights_seconds = backfill_from, heights_seconds
        self.stage = self.made()

    def made(self) -> Backfill:
        return Backfill(
            self.node,
            self.known,
            self.journal,
            self.metrics,
            page_heights=self.page,
            heights_seconds=self.heights_seconds,
            backfill_from=self.backfill_from,
            receipts=self.receipts,
            busy=lambda: self.busy,
            waits=(0.001, self.longest),
            arrival_seconds=0.01,
        )

    @property
    def appended(self) -> list[int]:
        """The heights of the runs in the journal, in order."""
        return [int(run.peer.removeprefix("api/")) for run in self.journal.runs]

    @property
    def heights_asked(self) -> list[int]:
        return [each for each in self.node.asked if isinstance(each, int)]

    def asked(self, way: Way) -> list[tuple[int, int]]:
        notes = (note for note in self.known.notes if isinstance(note, Asked))
        return [(note.first, note.last) for note in notes if note.way is way]

    @property
    def unobtainable(self) -> set[tuple[int, int]]:
        notes = (note for note in self.known.notes if isinstance(note, Unobtainable))
        return {(note.first, note.last) for note in notes}

    def told(self, note: Note) -> bool:
        return note in self.known.notes

    def sample(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"bridge_{name}_total", labels) or 0

    async def done(self) -> None:
        async with during(self.stage.run()):
            await until(lambda: self.is_done)

    @property
    def is_done(self) -> bool:
        known = self.known
        return not known.gone and not known.unknown and not any(known.entries.values())

    async def filled(self) -> None:
        async with during(self.stage.run()):
            await until(lambda: not self.known.gone)


# What the node's height says


async def test_nothing_is_asked_before_the_tracker_knows_what_the_journal_holds() -> None:
    bench = Bench({3})
    bench.known.caught = 0
    bench.node.before = lambda: pytest.fail("asked too early") if not bench.known.caught else None
    await bench.filled()


async def test_the_node_is_asked_for_its_highest_block_again_and_again() -> None:
    bench = Bench(heights_seconds=0.005)
    async with during(bench.stage.run()):
        await until(lambda: bench.told(Tip(6)))
        bench.node.highest = 7
        await until(lambda: bench.told(Tip(7)))


async def test_all_from_a_height_on_is_sought_once_the_node_has_it() -> None:
    bench = Bench(backfill_from=5, heights_seconds=0.002)
    bench.node.highest = 4
    async with during(bench.stage.run()):
        await until(lambda: bench.node.tips > 2)
        assert not [note for note in bench.known.notes if isinstance(note, Sought)]
        bench.node.highest = 6
        await until(lambda: bench.told(Sought(5, 6)))
        bench.node.highest = 7
        await until(lambda: bench.told(Tip(7)))
    assert [note for note in bench.known.notes if isinstance(note, Sought)] == [Sought(5, 6)]


async def test_what_an_operator_seeks_is_told_and_begun_at_once() -> None:
    bench = Bench(replays=True, longest=300)
    async with during(bench.stage.run()):
        await until(lambda: bench.node.tips > 0)
        bench.known.gone = {2, 3}
        bench.stage.sought(2, 3)
        await until(lambda: not bench.known.gone)
    assert bench.told(Sought(2, 3))


# By replay


async def test_gaps_are_asked_for_in_pages_lowest_first() -> None:
    bench = Bench({*range(2, 25), *range(26, 30)}, replays=True, page=10)
    await bench.filled()
    assert bench.node.replays == [(2, 11), (12, 21), (22, 24), (26, 29)]
    assert bench.asked(Way.REPLAY) == bench.node.replays
    assert bench.node.asked == []
    assert bench.sample("backfill_requests", way="replay", outcome="came") == 4


async def test_of_a_page_that_came_in_part_only_the_rest_is_asked_for_again() -> None:
    bench = Bench(set(range(10, 20)), page=10)
    first = {12, 17, 18}
    bench.node.sends = lambda height: None if height in first else bench.known.came(height)
    async with during(bench.stage.run()):
        await until(lambda: bench.known.gone == first)
        first.clear()
        await until(lambda: not bench.known.gone)
    assert bench.node.replays == [(10, 19), (12, 12), (17, 18)]


async def test_while_blocks_come_they_are_waited_for() -> None:
    bench = Bench(set(range(10, 20)), page=10)
    coming: list[int] = []
    bench.node.sends = coming.append
    async with during(bench.stage.run()):
        await until(lambda: len(coming) == 10)
        for height in coming:
            await asyncio.sleep(0.004)
            bench.known.came(height)
        await until(lambda: bench.sample("backfill_requests", way="replay", outcome="came") > 0)
    assert bench.node.replays == [(10, 19)]


async def test_a_page_that_does_not_come_keeps_no_other_waiting() -> None:
    bench = Bench({*range(10, 20), 30, 40}, page=5)
    bench.node.sends = lambda height: None if height < 15 else bench.known.came(height)
    async with during(bench.stage.run()):
        await until(lambda: bench.known.gone == set(range(10, 15)))


async def test_after_two_replays_in_vain_a_page_goes_by_the_api() -> None:
    bench = Bench({3})
    await bench.filled()
    assert bench.node.replays == [(3, 3), (3, 3)]
    assert bench.asked(Way.API) == [(3, 3)]
    assert bench.appended == [3]
    assert bench.sample("backfill_requests", way="replay", outcome="nothing-came") == 2
    assert bench.sample("backfill_requests", way="api", outcome="came") == 1
    assert bench.sample("backfill_blocks") == 1
    assert bench.sample("events_accepted", transport="api") == 1


async def test_a_node_that_replays_nothing_is_not_asked_to_for_every_page() -> None:
    bench = Bench({1, 2, 3, 4, 5}, page=1, longest=300)
    bench.node.refuses_replay = True
    await bench.filled()
    assert len(bench.node.replays) == 3
    assert bench.sample("backfill_requests", way="replay", outcome="node_refused") == 3


async def test_a_silent_node_is_asked_to_replay_again_after_a_while() -> None:
    bench = Bench({3, 5, *range(10, 20)}, page=1, longest=0.05)
    async with during(bench.stage.run()):
        await until(lambda: len(bench.node.replays) >= 3)
        bench.node.sends = bench.known.came
        await until(lambda: len(bench.known.gone) <= 3)


# By the API


async def test_blocks_are_fetched_downward_from_one_that_names_them() -> None:
    bench = Bench({1, 2, 3, 4, 5})
    await bench.filled()
    assert bench.appended == [5, 4, 3, 2, 1]


async def test_a_long_gap_is_fetched_from_its_top_page_by_page() -> None:
    bench = Bench({1, 2, 3, 4, 5}, page=2, longest=300)
    bench.node.refuses_replay = True
    await bench.filled()
    assert bench.appended == [5, 4, 3, 2, 1]


async def test_at_the_end_of_the_chain_blocks_are_fetched_upward() -> None:
    bench = Bench({4, 5, 6})
    await bench.filled()
    assert bench.appended == [4, 5, 6]


async def test_a_whole_chain_is_fetched_from_its_first_block_on() -> None:
    bench = Bench(set(ALL))
    await bench.filled()
    assert bench.appended == [0, 1, 2, 3, 4, 5, 6]


async def test_below_a_block_that_cannot_be_had_nothing_is_believed_of_the_api() -> None:
    bench = Bench({1, 2, 3, 4, 5})
    held = bench.node.heights.pop(3)
    async with during(bench.stage.run()):
        await until(lambda: bench.unobtainable == {(1, 3)})
        assert bench.appended == [5, 4]
        bench.node.heights[3] = held
        await until(lambda: not bench.known.gone)
    assert bench.appended == [5, 4, 3, 2, 1]


async def test_what_the_api_cannot_prove_comes_by_a_replay_when_the_node_sends_one() -> None:
    bench = Bench({1, 2, 3, 4, 5}, page=1)
    del bench.node.heights[3]
    async with during(bench.stage.run()):
        await until(lambda: (3, 3) in bench.unobtainable)
        bench.node.sends = lambda height: None if height == 3 else bench.known.came(height)
        await until(lambda: bench.known.gone == {3})


async def test_blocks_of_which_no_neighbour_is_known_are_not_fetched() -> None:
    bench = Bench({1, 2, 3, 4, 5, 6})
    bench.known.knows_below = False
    async with during(bench.stage.run()):
        await until(lambda: len(bench.node.replays) > 4)
        assert bench.node.asked == []
        bench.known.knows_below = True
        await until(lambda: not bench.known.gone)


async def test_what_came_meanwhile_is_not_appended() -> None:
    bench = Bench({3})
    bench.node.before = lambda: bench.known.came(3) if bench.node.asked == [3] else None
    await bench.filled()
    await asyncio.sleep(0.01)
    assert bench.node.asked[0] == 3
    assert bench.appended == []


async def test_false_blocks_are_refused_and_told_to_be_unobtainable() -> None:
    bench = Bench({3})
    true = bench.node.heights[3]
    forged = replace(DirectoryBlock.parse(true.directory), minutes=1)
    bench.node.heights[3] = replace(true, directory=forged.raw)
    async with during(bench.stage.run()):
        await until(lambda: bench.unobtainable == {(3, 3)})
        assert bench.sample("backfill_refused", reason="other-key") >= 3
        assert bench.appended == []
        bench.node.heights[3] = true
        await until(lambda: not bench.known.gone)
    assert bench.appended == [3]


async def test_what_is_unobtainable_is_tried_at_the_longest_wait_only() -> None:
    bench = Bench({3}, longest=300)
    del bench.node.heights[3]
    async with during(bench.stage.run()):
        await until(lambda: bench.unobtainable == {(3, 3)})
        await asyncio.sleep(0.05)
    assert bench.heights_asked == [3, 3, 3]
    notes = [note for note in bench.known.notes if isinstance(note, Unobtainable)]
    assert [note.why for note in notes] == ["dblock-by-height: Block not found"]


async def test_a_block_that_the_tracker_does_not_take_is_not_fetched_again_at_once() -> None:
    bench = Bench({3}, longest=300)
    bench.known.takes_nothing = True
    async with during(bench.stage.run()):
        await until(lambda: bench.sample("backfill_refused", reason="not-taken") == 1)
        bench.known.takes_nothing = False
        bench.known.came(3)
        await asyncio.sleep(0.02)
    assert bench.appended == [3]


# Entries, and what has them


def revealed(bench: Bench) -> list[bytes]:
    events = map(FactomEvent.FromString, bench.known.seen)
    return [event.entryReveal.entry.hash for event in events if event.HasField("entryReveal")]


async def test_entries_that_are_missing_are_fetched() -> None:
    bench = Bench(receipts=True)
    bench.known.entries = {4: entries_of(4), 6: set(sorted(entries_of(6))[:5])}
    await bench.done()
    assert bench.appended == [4, 6]
    assert set(revealed(bench)) == entries_of(4) | set(sorted(entries_of(6))[:5])
    assert bench.sample("backfill_entries") == 15


async def test_a_height_of_which_the_entries_are_not_known_is_fetched_and_then_they_are() -> None:
    bench = Bench(receipts=True, blind={3, 5})
    await bench.done()
    assert bench.appended == [3, 3, 5, 5]
    assert set(revealed(bench)) == entries_of(3) | entries_of(5)
    # The entry blocks came with the block: they are not asked for again.
    assert bench.heights_asked == [3, 5]


async def test_gaps_come_first_then_entries_then_heights_whose_entries_are_not_known() -> None:
    bench = Bench({2}, receipts=True, blind={3}, replays=True)
    bench.known.entries = {4: entries_of(4)}

    def replayed(height: int) -> None:
        assert bench.node.asked == []
        bench.known.came(height)

    bench.node.sends = replayed
    await bench.done()
    assert list(dict.fromkeys(bench.appended)) == [4, 3]


async def test_without_receipts_neither_entries_nor_entry_blocks_are_asked_for() -> None:
    bench = Bench({2}, receipts=False, blind={3})
    bench.known.entries = {4: entries_of(4)}
    await bench.filled()
    async with during(bench.stage.run()):
        await asyncio.sleep(0.01)
    assert bench.appended == [2]


async def test_a_height_that_cannot_be_had_keeps_no_other_waiting() -> None:
    bench = Bench({2}, receipts=True, blind={3, 4, 5})
    del bench.node.heights[3]
    bench.node.away_for = {4}
    async with during(bench.stage.run()):
        await until(lambda: bench.known.unknown == {3, 4} and not bench.known.gone)
        await until(lambda: not any(bench.known.entries.values()))
    assert bench.unobtainable == set()


async def test_an_entry_that_cannot_be_had_keeps_no_other_waiting() -> None:
    bench = Bench(receipts=True)
    lacking = min(entries_of(4))
    held = bench.node.parts_by_hash.pop(lacking)
    bench.known.entries = {4: entries_of(4), 6: entries_of(6)}
    async with during(bench.stage.run()):
        await until(lambda: bench.known.entries == {4: {lacking}, 6: set()})
        bench.node.parts_by_hash[lacking] = held
        await until(lambda: bench.is_done)


# In a lane of its own


async def test_while_live_events_wait_nothing_is_fetched() -> None:
    bench = Bench({2}, replays=True)
    bench.busy = True
    async with during(bench.stage.run()):
        await until(lambda: bench.told(Tip(6)))
        await asyncio.sleep(0.02)
        assert bench.node.replays == []
        bench.busy = False
        await until(lambda: not bench.known.gone)


async def test_while_live_events_wait_the_end_of_the_chain_is_watched_all_the_same() -> None:
    bench = Bench({2}, heights_seconds=0.01)
    bench.busy = True
    async with during(bench.stage.run()):
        await until(lambda: bench.node.tips > 2)
        bench.node.highest = 9
        await until(lambda: bench.told(Tip(9)))
    assert bench.node.replays == []


async def test_a_node_that_is_away_is_waited_for_and_no_page_is_blamed() -> None:
    bench = Bench({2, 3}, replays=True)
    bench.node.away = True
    async with during(bench.stage.run()):
        await until(
            lambda: bench.sample("backfill_requests", way="api", outcome="node_unavailable") > 4
        )
        assert bench.known.notes == []
        bench.node.away = False
        await until(lambda: not bench.known.gone)
    assert bench.node.replays == [(2, 3)]


async def test_a_page_at_which_the_node_goes_away_keeps_no_other_waiting() -> None:
    bench = Bench({1, 3, 5}, page=1)
    bench.node.away_for = {1}
    async with during(bench.stage.run()):
        await until(lambda: bench.known.gone == {1})
        await until(lambda: bench.unobtainable == {(1, 1)})
        bench.node.away_for = set()
        await until(lambda: not bench.known.gone)


async def test_a_full_disk_is_waited_for_with_the_same_block() -> None:
    bench = Bench({3})
    bench.journal.refusals.extend([StorageFull("full"), StorageFull("full")])
    await bench.filled()
    assert bench.heights_asked == [3]
    assert len(bench.journal.attempts) == 3
    assert len(set(bench.journal.attempts)) == 1
    assert bench.sample("storage_refusals", code="storage_full") == 2


async def test_a_bug_comes_out() -> None:
    bench = Bench({3})

    def bug() -> None:
        raise KeyError("no such key")

    bench.node.before = bug
    with pytest.raises(KeyError):
        await bench.stage.run()


@pytest.mark.parametrize("requests", range(1, 40, 3))
async def test_interrupted_anywhere_it_goes_on_and_nothing_is_appended_twice(requests: int) -> None:
    bench = Bench({1, 2, 3, 4}, receipts=True, blind={5})
    task = asyncio.create_task(bench.stage.run())
    left = requests

    def interrupt() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            task.cancel()

    bench.node.before = interrupt
    await asyncio.wait((task,), timeout=1)
    task.cancel()
    bench.node.before = lambda: None
    # The tracker, too, is behind when it begins again.
    bench.stage = bench.made()
    await bench.done()
    heights = [int(run.peer.removeprefix("api/")) for run in bench.journal.runs]
    assert set(heights) == {1, 2, 3, 4, 5}
    assert len(revealed(bench)) == sum(len(entries_of(height)) for height in (3, 4, 5))


@pytest.mark.parametrize("seed", range(10))
async def test_a_hostile_node_delays_and_nothing_else(seed: int) -> None:
    """`Known` fails the test when it is given a false block, or anything twice."""
    chance = random.Random(seed)
    bench = Bench({1, 2, 3, 4}, receipts=True, blind={5})
    node, true = bench.node, dict(bench.node.heights)
    parts = dict(node.parts_by_hash)

    def alternate() -> None:
        node.away = False
        node.heights, node.parts_by_hash = dict(true), dict(parts)
        lie = chance.randrange(6)
        if lie == 0:
            node.heights.clear()
        elif lie == 1:
            node.heights = {height: true[(height + 1) % 7] for height in true}
        elif lie == 2:
            for (mine, _), (_, other) in pairwise(parts.items()):
                node.parts_by_hash[mine] = other
        elif lie == 3:
            for height, raw in true.items():
                forged = replace(DirectoryBlock.parse(raw.directory), minutes=chance.randrange(9))
                node.heights[height] = replace(raw, directory=forged.raw)
        elif lie == 4:
            raise NodeUnavailable("reset by peer")

    node.before = alternate
    async with during(bench.stage.run()):
        await until(lambda: bench.is_done, 20)
    assert len(revealed(bench)) == sum(len(entries_of(height)) for height in (3, 4, 5))
