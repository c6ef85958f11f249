"""Feeds in any order, with losses, repeats and restarts: the receipts are what the bytes say."""

from collections import Counter
from dataclasses import dataclass
from functools import cache
from random import Random

from hypothesis import given, settings, strategies as st

from bridge.core.rebuild import commits
from bridge.model import Way
from bridge.pb.bridge.v1.block_receipt_pb2 import BlockReceipt
from bridge.pb.eventmessages.factomEvents_pb2 import (
    ChainCommit,
    EntryCommit,
    EntryReveal,
    EventSource,
    FactomEvent,
)
from tests.support.accounts import GRACE_PASSES, RESTART, Ledger, Step, accounts_of, event_of
from tests.support.events import small_capture
from tests.support.heights import extract


@cache
def live_feed() -> tuple[Step, ...]:
    """Commits, reveals, live blocks, and the same blocks again with their entries' hashes."""
    payloads = dict.fromkeys(small_capture("replay-from-height").payloads())
    return tuple(Step(payload) for payload in payloads if _is_tracked(payload))


def _is_tracked(payload: bytes) -> bool:
    event = event_of(payload)
    name = event.WhichOneof("event") if event else None
    return name in {"chainCommit", "entryCommit", "entryReveal", "directoryBlockCommit"}


@cache
def past() -> tuple[Step, ...]:
    """Blocks of another chain, live, replayed and fetched, and what belongs to each."""
    found: list[Step] = []
    for height in extract():
        if height.capture != "backfill-api":
            continue
        (payload,) = height.payloads
        found += [Step(_without(payload, "entries")), Step(_without(payload, "contents"))]
        block = FactomEvent.FromString(payload).directoryBlockCommit
        found += [Step(_event_of(commit)) for commit in commits(block.entryCreditBlock)]
        for entry in block.entryBlockEntries:
            event = FactomEvent(entryReveal=EntryReveal(entry=entry)).SerializeToString()
            found += [Step(event), Step(event, height.height)]
        found += [Step(payload), Step(payload, height.height)]
    return tuple(dict.fromkeys(found))


def _without(payload: bytes, what: str) -> bytes:
    """The block as it comes live, or as a node that sends contents once replays it."""
    event = FactomEvent.FromString(payload)
    block = event.directoryBlockCommit
    if what == "contents":
        for entry in block.entryBlockEntries:
            del entry.externalIDs[:]
            entry.content = b""
    else:
        event.eventSource = EventSource.LIVE
        del block.entryBlocks[:]
        del block.entryBlockEntries[:]
    return event.SerializeToString()


def _event_of(commit: ChainCommit | EntryCommit) -> bytes:
    if isinstance(commit, ChainCommit):
        return FactomEvent(chainCommit=commit).SerializeToString()
    return FactomEvent(entryCommit=commit).SerializeToString()


@dataclass(frozen=True)
class Feed:
    """Some of the steps of a source, some twice, more or less in order, and what happens beside."""

    seed: int
    of_the_past: bool
    spread: int
    loss: float
    restarts: int
    graces: int

    @property
    def steps(self) -> list[Step]:
        random = Random(self.seed)
        placed = [
            (at + random.uniform(0, self.spread), step)
            for at, step in enumerate(past() if self.of_the_past else live_feed())
            for _ in range(1 + (random.random() < 0.2))
            if random.random() >= self.loss
        ]
        steps = [step for _, step in sorted(placed, key=lambda each: each[0])]
        for number, step in ((self.restarts, RESTART), (self.graces, GRACE_PASSES)):
            for _ in range(number):
                steps.insert(random.randrange(len(steps) + 1), step)
        return steps


seeds, few = st.integers(0, 2**32), st.integers(0, 5)
spreads = st.sampled_from([0, 3, 1000])
feeds = st.builds(Feed, seeds, st.booleans(), spreads, st.sampled_from([0, 0.02, 0.3]), few, few)
whole_feeds = st.builds(Feed, seeds, st.just(value=False), spreads, st.just(0), few, st.just(0))


def run(steps: list[Step], each: int = 1) -> Ledger:
    """Take the steps, committing after every so many, and before a restart."""
    ledger = Ledger()
    for number, step in enumerate(steps):
        ledger.step(step)
        if number % each == 0:
            check(ledger.take())
    ledger.finish()
    return ledger


def check(receipts: list[BlockReceipt]) -> None:
    """The numbers of every receipt add up."""
    for told in receipts:
        commits = told.commits_seen + told.commits_recovered + told.commits_missing
        reveals = told.reveals_seen + told.reveals_recovered + told.reveals_missing
        assert commits == told.commits_expected
        assert reveals == told.reveals_expected
        lacks = told.commits_missing + told.reveals_missing
        assert told.complete == (told.links_verified and not lacks)


def last(ledger: Ledger) -> dict[int, BlockReceipt]:
    return {told.height: told for told in ledger.told}


@given(feeds, st.sampled_from([1, 7, 1000]))
@settings(max_examples=200)
def test_the_last_receipts_say_what_the_bytes_say(feed: Feed, each: int) -> None:
    steps = feed.steps
    ledger = run(steps, each)
    accounts = accounts_of(steps)
    assert last(ledger) == {height: its.receipt(height) for height, its in accounts.items()}
    for height, account in accounts.items():
        assert set(ledger.receipts.missing_entries(height)) == account.reveals_missing
    wanting = [height for height, its in sorted(accounts.items()) if its.reveals_missing]
    blind = [height for height, its in sorted(accounts.items()) if its.reveals is None]
    assert ledger.receipts.wanting(1000) == wanting
    assert ledger.receipts.blind(1000) == blind


@given(feeds)
@settings(max_examples=100)
def test_nothing_is_told_twice_in_a_row_or_recovered_twice(feed: Feed) -> None:
    ledger = run(feed.steps)
    before: dict[int, BlockReceipt] = {}
    for told in ledger.told:
        assert before.get(told.height) != told
        before[told.height] = told
    assert all(count == 1 for count in Counter(ledger.recovered).values())
    assert {way for way, _, _ in ledger.recovered} <= {Way.REPLAY, Way.API}
    # What was recovered is what the receipts say, but for entries that were fetched one by one.
    recovered = Counter(height for _, height, _ in ledger.recovered)
    for height, told in before.items():
        assert told.commits_recovered <= recovered[height]
        assert recovered[height] <= told.commits_recovered + told.reveals_recovered


@given(whole_feeds)
@settings(max_examples=100)
def test_a_feed_that_loses_nothing_ends_in_the_same_receipts_in_any_order(
    feed: Feed,
) -> None:
    """As long as its blocks come live: those of a replay are not waited for."""
    live = [step for step in feed.steps if step is RESTART or not _is_replayed(step.payload)]
    told = last(run(live))
    assert told == last(run([step for step in live_feed() if not _is_replayed(step.payload)]))
    assert all(each.complete for height, each in told.items() if height - 1 in told)
    assert not any(each.commits_recovered for each in told.values())


def _is_replayed(payload: bytes) -> bool:
    return FactomEvent.FromString(payload).eventSource == 1


@given(feeds)
@settings(max_examples=100)
def test_only_what_is_not_complete_takes_room(feed: Feed) -> None:
    ledger = run(feed.steps)
    told = last(ledger)
    for name in ledger.items:
        kind, _, rest = name.partition("/")
        if kind == "receipt" and not rest.startswith("heights"):
            height = int(rest.split("/")[1], 16)
            assert not told[height].complete
            assert not rest.startswith("owed")
