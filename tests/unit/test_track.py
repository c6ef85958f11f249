"""`stages.track`: what comes into the journal, into alerts, receipts and recovered events."""

import asyncio
from functools import cache
from typing import NamedTuple

import pytest

from bridge.core.framing import frame, split_frames
from bridge.core.groups import own_run
from bridge.core.heights import Bounds
from bridge.emitter.block import Block, Load
from bridge.emitter.chain import Chain
from bridge.errors import StorageFull
from bridge.metrics import Metrics
from bridge.model import Asked, Group, Kind, RecordType, Run, Sought, Tip, Way
from bridge.pb.bridge.v1.block_receipt_pb2 import BlockReceipt
from bridge.pb.bridge.v1.gap_alert_pb2 import GapAlert
from bridge.pb.eventmessages.factomEvents_pb2 import (
    DirectoryBlockCommit,
    EntityState,
    EntryCommit,
    EntryReveal,
    EventSource,
    FactomEvent,
)
from bridge.stages.track import READER, Tracker
from tests.doubles import MemoryJournal
from tests.support.waiting import during, until

AT_ONCE = Bounds(grace=0)
_START_MS, _BLOCK_MS = 1_700_000_000_000, 600_000


class Told(NamedTuple):
    """A state of a gap."""

    status: str
    first: int
    last: int
    how: str


@cache
def chain() -> list[Block]:
    grown = Chain(3, first=0)
    grown._load = Load(chains=1, entries=3)
    return [grown.grow(_START_MS + height * _BLOCK_MS, _BLOCK_MS).block for height in range(12)]


def _message(block: Block, *, whole: bool = False) -> DirectoryBlockCommit:
    state = block.whole() if whole else block.live()
    return DirectoryBlockCommit(
        directoryBlock=state.directory_block,
        adminBlock=state.admin_block,
        factoidBlock=state.factoid_block,
        entryCreditBlock=state.entry_credit_block,
        entryBlocks=state.entry_blocks,
        entryBlockEntries=state.entries,
    )


def live(height: int) -> bytes:
    return FactomEvent(directoryBlockCommit=_message(chain()[height])).SerializeToString()


def replayed(height: int) -> bytes:
    message = _message(chain()[height], whole=True)
    return FactomEvent(
        eventSource=EventSource.REPLAY_BOOT, directoryBlockCommit=message
    ).SerializeToString()


def minute(height: int) -> bytes:
    event = FactomEvent()
    event.processListEvent.newBlockEvent.newBlockHeight = height
    return event.SerializeToString()


def run(*payloads: bytes, peer: str = "tcp/1") -> Run:
    return Run(peer, 1_000, len(payloads), b"".join(map(frame, payloads)))


def alerts(journal: MemoryJournal) -> list[GapAlert]:
    return [GapAlert.FromString(content) for content in _own(journal, Kind.GAP_ALERT)]


def receipts(journal: MemoryJournal) -> list[BlockReceipt]:
    return [BlockReceipt.FromString(content) for content in _own(journal, Kind.BLOCK_RECEIPT)]


def _own(journal: MemoryJournal, kind: Kind) -> list[bytes]:
    found = []
    for each in journal.runs:
        for type_, payload in split_frames(each.frames):
            name, _, content = payload.partition(b"\0")
            if type_ == RecordType.OWN and name.decode() == kind:
                found.append(content)
    return found


def recovered(journal: MemoryJournal, peer: str) -> list[FactomEvent]:
    return [
        FactomEvent.FromString(payload)
        for each in journal.runs
        if each.peer == peer
        for type_, payload in split_frames(each.frames)
        if type_ == RecordType.FEED
    ]


def told(journal: MemoryJournal) -> list[Told]:
    return [
        Told(
            GapAlert.Status.Name(alert.status).removeprefix("STATUS_").lower(),
            alert.first_height,
            alert.last_height,
            GapAlert.How.Name(alert.how).removeprefix("HOW_").lower(),
        )
        for alert in alerts(journal)
        if alert.type == GapAlert.TYPE_GAP
    ]


def tracker_of(
    journal: MemoryJournal, metrics: Metrics | None = None, bounds: Bounds = AT_ONCE
) -> Tracker:
    return Tracker(
        journal,
        metrics or Metrics(),
        network="test",
        bounds=bounds,
        tick_seconds=0.001,
        gather_seconds=0,
        retry_seconds=0.001,
    )


async def test_what_cannot_wait_goes_first_at_each_run() -> None:
    journal, way, asked = MemoryJournal(), asyncio.Event(), 0

    async def make_way() -> None:
        nonlocal asked
        asked += 1
        await way.wait()

    tracker = Tracker(
        journal, Metrics(), network="test", bounds=AT_ONCE, tick_seconds=0.001, make_way=make_way
    )
    await journal.append([Run("tcp/1", 5, 1, frame(b"")), Run("tcp/2", 5, 1, frame(b""))])
    async with during(tracker.run()):
        caught_up = asyncio.create_task(tracker.caught_up())
        await asyncio.sleep(0.01)
        assert (asked, caught_up.done()) == (1, False)
        way.set()
        await asyncio.wait_for(caught_up, 1)
    assert asked == 2


async def _tracked(journal: MemoryJournal, *runs: Run) -> Metrics:
    """Append each of `runs` when those before it are tracked."""
    metrics = Metrics()
    tracker = tracker_of(journal, metrics)
    async with during(tracker.run()):
        for each in runs:
            await journal.append([each])
            await tracker.caught_up()
        await tracker.caught_up()
    return metrics


@pytest.mark.parametrize(
    ("fill", "peer", "how"),
    [
        (live, "tcp/1", "late"),
        (replayed, "tcp/1", "replay"),
        (replayed, "api/2", "api"),
    ],
)
async def test_a_gap_is_opened_and_resolved_with_how(fill, peer: str, how: str) -> None:  # type: ignore[no-untyped-def]
    journal = MemoryJournal()
    metrics = await _tracked(
        journal,
        run(live(1), minute(2), live(3), minute(4)),
        run(fill(2), peer=peer),
    )
    assert told(journal) == [Told("opened", 2, 2, "unspecified"), Told("resolved", 2, 2, how)]
    assert len({alert.gap_id for alert in alerts(journal)}) == 1
    assert metrics.registry.get_sample_value("bridge_gaps_open") == 0


async def test_what_is_missing_is_told_as_backfill_asks_for_it() -> None:
    journal = MemoryJournal()
    await journal.append([run(live(1), minute(2), live(4), minute(5))])
    tracker = tracker_of(journal)
    async with during(tracker.run()):
        await until(lambda: bool(tracker.missing()))
        assert list(tracker.missing()) == [(2, 3)]
        assert tracker.key_above(3) == chain()[3].directory.hashes().key_merkle_root
        below = tracker.links_below(2)
        assert below is not None
        assert below.key_merkle_root == chain()[1].directory.hashes().key_merkle_root
        assert tracker.agrees(4, chain()[4].directory.hashes().key_merkle_root)
        assert not tracker.agrees(3, chain()[3].directory.hashes().key_merkle_root)
        assert tracker.blind(10) == [1, 4]
        for note in (Asked(2, 3, Way.REPLAY), Tip(6), Sought(0, 0)):
            tracker.tell(note)
        assert tracker.table()["pending"] == 3
        await tracker.caught_up()
        assert list(tracker.missing()) == [(0, 0), (2, 3), (5, 6)]
        table = tracker.table()
    assert [(gap["first"], gap["status"]) for gap in table["gaps"]] == [
        (0, "opened"),
        (2, "backfilling"),
        (5, "opened"),
    ]
    assert (table["network"], table["highest"], table["missing"]) == ("test", 4, 5)


async def test_commits_that_did_not_come_are_taken_out_of_the_block_and_told_by_whose() -> None:
    journal = MemoryJournal()
    items = _message(chain()[1]).entryCreditBlock.entries
    seen = next(item.entryCommit for item in items if item.HasField("entryCommit"))
    event = FactomEvent(entryCommit=seen)
    event.entryCommit.entityState = EntityState.ACCEPTED
    await _tracked(journal, run(event.SerializeToString(), live(1)), run(replayed(2), peer="api/2"))
    out_of_feed, out_of_api = recovered(journal, "bridge"), recovered(journal, "api/2")[1:]
    expected = len(_message(chain()[1]).entryCreditBlock.entries)
    assert 0 < len(out_of_feed) < expected
    assert {each.eventSource for each in out_of_feed + out_of_api} == {EventSource.REPLAY_BOOT}
    last = {receipt.height: receipt for receipt in receipts(journal)}
    assert last[1].commits_seen == 1
    assert last[1].commits_recovered == len(out_of_feed)
    assert not last[1].HasField("reveals_expected")
    assert last[2].commits_recovered + last[2].reveals_recovered == len(out_of_api)
    assert last[2].complete


async def test_reveals_that_were_fetched_complete_their_height() -> None:
    journal = MemoryJournal()
    whole = _message(chain()[2], whole=True)
    bare = DirectoryBlockCommit.FromString(whole.SerializeToString())
    for entry in bare.entryBlockEntries:
        for name in ("externalIDs", "content", "version"):
            entry.ClearField(name)
    block = FactomEvent(eventSource=EventSource.REPLAY_BOOT, directoryBlockCommit=bare)
    tracker = tracker_of(journal)
    async with during(tracker.run()):
        await journal.append([run(live(1), minute(2), block.SerializeToString())])
        await tracker.caught_up()
        assert tracker.wanting(5) == [2]
        hashes = tracker.missing_entries(2)
        assert set(hashes) == {entry.hash for entry in whole.entryBlockEntries}
        reveals = [
            FactomEvent(
                eventSource=EventSource.REPLAY_BOOT, entryReveal=EntryReveal(entry=entry)
            ).SerializeToString()
            for entry in whole.entryBlockEntries
        ]
        await journal.append([run(*reveals, peer="api/2")])
        await tracker.caught_up()
        assert tracker.wanting(5) == []
    last = receipts(journal)[-1]
    assert (last.height, last.reveals_recovered, last.reveals_missing) == (2, len(hashes), 0)
    assert last.complete


@pytest.mark.parametrize("speaks", ["minute", "tip"])
async def test_a_first_block_that_is_believed_later_is_complete_then(speaks: str) -> None:
    journal = MemoryJournal()
    tracker = tracker_of(journal)
    async with during(tracker.run()):
        await journal.append([run(replayed(0))])
        await tracker.caught_up()
        assert not receipts(journal)[-1].complete
        if speaks == "tip":
            tracker.tell(Tip(0))
        else:
            await journal.append([run(minute(1))])
        await tracker.caught_up()
    last = receipts(journal)[-1]
    assert (last.height, last.links_verified, last.complete) == (0, True, True)


async def test_only_records_of_the_feed_are_heights() -> None:
    journal = MemoryJournal()
    journal.put(Group(1, 1, (run(live(1)),)))
    journal.put(Group(2, 2, (own_run(Kind.GAP_ALERT, b"", 5),)))
    journal.put(Group(3, 3, (Run("tcp/1", 5, 1, frame(live(9), RecordType.FRAMING)),)))
    journal.put(Group(4, 9, (), "damaged"))
    journal.put(Group(10, 11, (run(b"\xff", live(2)),)))
    tracker = tracker_of(journal)
    async with during(tracker.run()):
        await tracker.caught_up()
    assert told(journal) == []
    assert tracker.table()["highest"] == 2


async def test_a_full_disk_is_the_cause_of_what_is_missing_after_it() -> None:
    journal = MemoryJournal()
    storage = GapAlert(type=GapAlert.TYPE_STORAGE).SerializeToString()
    await _tracked(
        journal,
        run(live(1), minute(2)),
        own_run(Kind.GAP_ALERT, storage, 5),
        run(live(5), minute(6)),
    )
    (opened,) = [alert for alert in alerts(journal) if alert.type == GapAlert.TYPE_GAP]
    assert opened.cause == GapAlert.CAUSE_STORAGE


async def test_it_goes_on_where_it_stopped_and_tells_nothing_twice() -> None:
    journal = MemoryJournal()
    await _tracked(journal, run(live(1), minute(2), live(5), minute(6)))
    before = receipts(journal)
    metrics = await _tracked(journal)
    assert metrics.registry.get_sample_value("bridge_heights_missing") == 3
    assert len(told(journal)) == 1
    assert receipts(journal) == before
    await _tracked(journal, run(live(2), live(3), live(4)))
    assert [each.status for each in told(journal)] == ["opened", "resolved"]


async def test_alerts_and_state_and_checkpoint_are_committed_together_or_not_at_all() -> None:
    journal = MemoryJournal()
    await journal.append([run(live(1), minute(2), live(5), minute(6))])
    journal.refusals.extend([StorageFull("no space")] * 100_000)
    async with during(tracker_of(journal).run()):
        await until(lambda: len(journal.attempts) > 3)
        assert (journal.position(READER), journal.items(READER), told(journal)) == (0, [], [])
        journal.refusals.clear()
        await until(lambda: bool(told(journal)))
    assert len(told(journal)) == 1
    assert journal.position(READER) > 0


async def test_state_alone_is_committed_now_and_then_and_not_with_every_step() -> None:
    journal = MemoryJournal()
    commit = FactomEvent(entryCommit=EntryCommit(entryHash=b"h" * 32)).SerializeToString()
    tracker = tracker_of(journal)
    async with during(tracker.run()):
        for _ in range(50):
            await journal.append([run(commit)])
            await tracker.caught_up()
        writes = len(journal.attempts) - 50
        await until(lambda: journal.position(READER) == 50)
    assert writes <= 1


async def test_it_waits_for_what_is_not_there_yet() -> None:
    journal = MemoryJournal()
    async with during(tracker_of(journal).run()):
        await asyncio.sleep(0.01)
        await journal.append([run(live(1), minute(2), live(4), minute(5))])
        await until(lambda: len(told(journal)) == 1)
