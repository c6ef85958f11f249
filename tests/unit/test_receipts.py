"""`core.receipts`: the account of every height, and what is recovered."""

import hashlib
from collections import Counter
from functools import cache
from itertools import pairwise, zip_longest
from typing import Any

import pytest

from bridge.core.binary.entries import EntryBlock
from bridge.core.receipts import MOST_NAMED, Receipts
from bridge.core.waiting import Waiting
from bridge.model import Way
from bridge.pb.bridge.v1.block_receipt_pb2 import BlockReceipt
from bridge.pb.eventmessages.entryBlock_pb2 import EntryBlockEntry
from bridge.pb.eventmessages.factomEvents_pb2 import (
    DirectoryBlockCommit,
    EntryReveal,
    FactomEvent,
)
from tests.support.accounts import GRACE, Ledger, Step, accounts_of, book, commit_key, event_of
from tests.support.captures import CAPTURES, find_capture, not_here
from tests.support.heights import extract


@cache
def steps(name: str) -> tuple[Step, ...]:
    capture = find_capture(name)
    if capture is None:
        not_here(name)
    return tuple(map(Step, capture.payloads()))


@cache
def events(name: str) -> tuple[FactomEvent | None, ...]:
    return tuple(event_of(step.payload) for step in steps(name))


def blocks(name: str) -> list[DirectoryBlockCommit]:
    return [
        event.directoryBlockCommit
        for event in events(name)
        if event is not None and event.HasField("directoryBlockCommit")
    ]


def height_of(message: DirectoryBlockCommit) -> int:
    return message.directoryBlock.header.blockHeight


def expected(given: tuple[Step, ...] | list[Step]) -> dict[int, BlockReceipt]:
    return {height: account.receipt(height) for height, account in accounts_of(given).items()}


def member_of(payload: bytes) -> Any:
    event = FactomEvent.FromString(payload)
    assert event.eventSource == 1
    return getattr(event, event.WhichOneof("event") or "")


def adds_up(receipt: BlockReceipt) -> bool:
    commits = receipt.commits_seen + receipt.commits_recovered + receipt.commits_missing
    reveals = receipt.reveals_seen + receipt.reveals_recovered + receipt.reveals_missing
    return commits == receipt.commits_expected and reveals == receipt.reveals_expected


# Recordings


@pytest.mark.parametrize("name", CAPTURES)
def test_the_receipts_of_a_recording_say_what_its_bytes_say(name: str) -> None:
    ledger = Ledger()
    assert ledger.run(steps(name)) == expected(steps(name))
    assert all(map(adds_up, ledger.told))
    for height, of_height in _by_height(ledger.told).items():
        assert all(one != next_ for one, next_ in pairwise(of_height)), height
    recovered = [payload for _, _, payload in ledger.recovered]
    assert len(set(recovered)) == len(recovered)


def _by_height(receipts: list[BlockReceipt]) -> dict[int, list[BlockReceipt]]:
    found: dict[int, list[BlockReceipt]] = {}
    for each in receipts:
        found.setdefault(each.height, []).append(each)
    return found


def test_a_feed_without_loss_has_complete_receipts_and_nothing_is_recovered() -> None:
    ledger = Ledger()
    receipts = ledger.run(steps("tcp-protobuf-once"))
    assert sorted(receipts) == list(range(1, 9))
    # The block before the first is not there, so its links are not proven.
    assert [height for height, each in receipts.items() if not each.complete] == [1]
    assert sum(each.commits_seen for each in receipts.values()) == 62
    assert not any(each.commits_recovered or each.commits_missing for each in receipts.values())
    assert ledger.recovered == []
    live = [each for each in receipts.values() if each.HasField("reveals_expected")]
    assert all(each.reveals_expected == 0 for each in live)
    assert len(ledger.told) == 8


def test_a_replay_tells_of_the_reveals_and_of_a_complete_height_nothing_more() -> None:
    given = steps("replay-from-height")
    ledger = Ledger()
    receipts = ledger.run(given)
    replayed = {height_of(each) for each in blocks("replay-from-height") if each.entryBlocks}
    assert len(replayed) > 3
    assert all(receipts[height].HasField("reveals_expected") for height in replayed)
    assert not any(each.reveals_missing or each.reveals_recovered for each in receipts.values())
    # Of the 61 reveals of the feed, 5 belong to blocks that were not replayed.
    assert sum(each.reveals_seen for each in receipts.values()) == 56
    told = len(ledger.told)
    ledger.run(
        [
            step
            for step, event in zip(given, events("replay-from-height"), strict=True)
            if event is not None and event.HasField("directoryBlockCommit")
        ]
    )
    assert len(ledger.told) == told
    assert ledger.recovered == []


def test_only_heights_that_are_not_complete_have_rows() -> None:
    ledger = Ledger()
    ledger.run(steps("replay-from-height"))
    assert {name.split("/")[0:2][-1] for name in ledger.items if name.startswith("rec")} == {
        "heights"
    }


# Removals

ENOUGH = 100


@cache
def removals() -> tuple[tuple[str, str, bytes], ...]:
    """Commits and reveals that a block of their recording lists: 100, spread over recordings."""
    by_recording = []
    for name in CAPTURES:
        if find_capture(name) is None:
            continue
        accounts = accounts_of(steps(name)).values()
        commits = {each for account in accounts for each in account.commits}
        reveals = {each for account in accounts for each in account.reveals or ()}
        there = dict.fromkeys(
            key for event in events(name) if (key := _key(event)) and key[1] in commits | reveals
        )
        by_recording.append([(name, *key) for key in sorted(there, key=_shuffled)])
    rounds = zip_longest(*by_recording)
    spread = [each for round_ in rounds for each in round_ if each is not None]
    assert len(spread) >= ENOUGH
    return tuple(spread[:ENOUGH])


def _shuffled(key: tuple[str, bytes]) -> bytes:
    return hashlib.sha256(key[1]).digest()


def _key(event: FactomEvent | None) -> tuple[str, bytes] | None:
    name = event.WhichOneof("event") if event else None
    if event is None or name not in {"chainCommit", "entryCommit", "entryReveal"}:
        return None
    member = getattr(event, name)
    return name, member.entry.hash if name == "entryReveal" else commit_key(member)


@cache
def undisturbed(name: str) -> tuple[dict[int, BlockReceipt], Counter[tuple[Way, int, bytes]]]:
    ledger = Ledger()
    return ledger.run(steps(name)), Counter(ledger.recovered)


@pytest.mark.parametrize("number", range(ENOUGH))
def test_any_commit_or_reveal_that_is_removed_is_recovered_or_named(number: int) -> None:
    name, kind, key = removals()[number]
    left = [
        step
        for step, event in zip(steps(name), events(name), strict=True)
        if _key(event) != (kind, key)
    ]
    assert len(left) < len(steps(name))
    ledger = Ledger()
    (before, whole), after = undisturbed(name), ledger.run(left)
    assert after == expected(left)
    more = Counter(ledger.recovered) - whole
    assert sum(more.values()) <= 1
    changed = [height for height in before if before[height] != after[height]]
    assert len(changed) == 1
    (height,) = changed
    if more:
        ((way, for_height, payload),) = more
        assert (way, for_height) == (Way.REPLAY, height)
        assert _key(event_of(payload)) == (kind, key)
        assert member_of(payload).entityState == 3
        count = "reveals_recovered" if kind == "entryReveal" else "commits_recovered"
        assert getattr(after[height], count) == getattr(before[height], count) + 1
    else:
        assert kind == "entryReveal"
        assert key in ledger.receipts.missing_entries(height)
        assert height in ledger.receipts.wanting(1000)
        assert not after[height].complete


def test_removals_are_of_all_kinds_and_recordings() -> None:
    assert {kind for _, kind, _ in removals()} == {"chainCommit", "entryCommit", "entryReveal"}
    assert len({name for name, _, _ in removals()}) >= 5


# Commits that are late


def late(name: str = "tcp-protobuf-once") -> tuple[Ledger, list[Step], int]:
    """A ledger that has the blocks and not the commits, those, and how many blocks list some."""
    ledger = Ledger()
    commits = []
    for step, event in zip(steps(name), events(name), strict=True):
        key = _key(event)
        if key is None:
            ledger.step(step)
        elif key[0] != "entryReveal":
            commits.append(step)
    return ledger, commits, sum(map(bool, map(_listed, blocks(name))))


def _listed(message: DirectoryBlockCommit) -> int:
    names = ("chainCommit", "entryCommit")
    return sum(
        each.WhichOneof("entryCreditBlockEntry") in names
        for each in message.entryCreditBlock.entries
    )


def test_commits_of_a_live_block_are_waited_for_and_count_as_seen() -> None:
    ledger, commits, owing = late()
    first = ledger.take()
    assert sum(each.commits_missing for each in first) == 62
    assert sum(not each.complete for each in first if each.commits_missing) == owing
    ledger.now = GRACE - 1
    ledger.receipts.tick(ledger.now)
    assert ledger.take() == []
    for step in commits:
        ledger.step(step)
    assert {each.commits_missing for each in ledger.take()} == {0}
    receipts = ledger.finish()
    assert sum(each.commits_seen for each in receipts.values()) == 62
    assert ledger.recovered == []


def test_commits_that_never_come_are_recovered_once_when_the_grace_is_over() -> None:
    ledger, commits, _ = late()
    ledger.take()
    ledger.now = GRACE
    ledger.receipts.tick(ledger.now)
    ledger.take()
    assert {way for way, _, _ in ledger.recovered} == {Way.REPLAY}
    found = {commit_key(member_of(payload)) for _, _, payload in ledger.recovered}
    assert found == {(_key(event_of(step.payload)) or ("", b""))[1] for step in commits}
    assert len(ledger.recovered) == 62
    # Late ones, blocks again, another grace, a restart: nothing is recovered twice.
    ledger.restart()
    receipts = ledger.run((*commits, *steps("tcp-protobuf-once")))
    assert len(ledger.recovered) == 62
    assert sum(each.commits_recovered for each in receipts.values()) == 62


def test_what_is_owed_is_owed_anew_after_a_restart() -> None:
    ledger, commits, _ = late()
    ledger.take()
    ledger.now = GRACE - 1
    for step in commits[:60]:
        ledger.step(step)
    ledger.take()
    ledger.restart()
    assert ledger.take() == []
    ledger.now += GRACE - 1
    ledger.receipts.tick(ledger.now)
    assert ledger.take() == []
    receipts = ledger.finish()
    # The first 60 events are 30 commits, each registered and accepted.
    assert sum(each.commits_seen for each in receipts.values()) == 30
    assert len(ledger.recovered) == 32
    assert not [name for name in ledger.items if name.startswith("receipt/owed")]


def test_only_so_much_is_waited_for_the_oldest_heights_give_way() -> None:
    waiting = Waiting(most_heights=2, most_ids=5)
    assert waiting.add(1, {10, 11}, 30) == []
    assert waiting.add(2, {20, 21}, 31) == []
    assert waiting.add(3, {30}, 32) == [(1, {10, 11})]
    assert waiting.add(4, {40, 41, 42, 43}, 33) == [(2, {20, 21})]
    assert waiting.came([10, 30, 41]) == [(3, {30}), (4, {41})]
    assert waiting.over(32) == []
    assert waiting.over(33) == [(4, {40, 42, 43})]
    assert waiting.add(5, set(range(6)), 40) == [(5, set(range(6)))]


def test_where_too_many_heights_owe_commits_the_oldest_are_recovered_at_once() -> None:
    message = DirectoryBlockCommit()
    message.CopyFrom(max(blocks("tcp-protobuf-once"), key=_listed))
    receipts = Receipts([], 0, fetch=lambda _: None)
    for height in range(70):
        message.directoryBlock.header.blockHeight = height
        book(receipts, message, way=Way.LIVE)
    derived = receipts.take()
    count = _listed(message)
    assert Counter(height for _, height, _ in derived.recovered) == dict.fromkeys(range(6), count)
    recovered = [each.commits_recovered for each in derived.receipts]
    assert recovered == [count] * 6 + [0] * 64
    assert all(map(adds_up, derived.receipts))


def test_what_was_recovered_for_a_height_is_remembered_when_its_entries_come() -> None:
    message = max(whole_blocks(), key=_listed)
    ledger = Ledger()
    book(ledger.receipts, summary(message), way=Way.LIVE)
    ledger.take()
    ledger.finish()
    assert not [name for name in ledger.items if name.startswith("receipt/open")]
    ledger.restart()
    for way in (Way.REPLAY, Way.API):
        book(ledger.receipts, message, way=way, now=ledger.now)
        ledger.take()
    assert [each.commits_recovered for each in ledger.told] == [0, *[_listed(message)] * 2]
    assert ledger.told[-1].complete


# Reveals


def whole_blocks() -> list[DirectoryBlockCommit]:
    """Blocks with their entries' contents."""
    events_ = [event for height in extract() for event in height.events]
    found = {
        height_of(event.directoryBlockCommit): event.directoryBlockCommit
        for event in events_
        if any(each.content for each in event.directoryBlockCommit.entryBlockEntries)
    }
    assert found
    return list(found.values())


def without_contents(message: DirectoryBlockCommit) -> DirectoryBlockCommit:
    bare = DirectoryBlockCommit()
    bare.CopyFrom(message)
    for entry in bare.entryBlockEntries:
        del entry.externalIDs[:]
        entry.content = b""
    return bare


def summary(message: DirectoryBlockCommit) -> DirectoryBlockCommit:
    bare = DirectoryBlockCommit()
    bare.CopyFrom(message)
    del bare.entryBlocks[:]
    del bare.entryBlockEntries[:]
    return bare


def hashes(message: DirectoryBlockCommit) -> set[bytes]:
    return {entry.hash for entry in message.entryBlockEntries}


def books(ledger: Ledger, message: DirectoryBlockCommit, way: Way = Way.REPLAY) -> BlockReceipt:
    """The receipt after this block."""
    ledger.block(message, way)
    (receipt,) = ledger.take()
    return receipt


def test_of_a_live_block_nothing_is_known_of_reveals_and_it_is_blind() -> None:
    for message in whole_blocks():
        ledger = Ledger()
        receipt = books(ledger, summary(message), Way.LIVE)
        assert not receipt.HasField("reveals_expected")
        assert not receipt.HasField("reveals_missing")
        height = height_of(message)
        assert ledger.receipts.blind(10) == [height]
        assert ledger.receipts.wanting(10) == []
        receipt = books(ledger, message)
        assert receipt.reveals_expected == len(hashes(message))
        assert ledger.receipts.blind(10) == []


def test_a_directory_without_entry_blocks_has_no_reveals_and_is_not_blind() -> None:
    for message in blocks("tcp-protobuf-once"):
        if len(message.directoryBlock.entries) > 3:
            continue
        ledger = Ledger()
        receipt = books(ledger, message, Way.LIVE)
        assert receipt.HasField("reveals_missing")
        assert receipt.reveals_expected == 0
        assert ledger.receipts.blind(10) == []
        break
    else:
        pytest.fail("the recording has no such block")


@pytest.mark.parametrize(
    ("came", "out"), [(Way.LIVE, Way.REPLAY), (Way.REPLAY, Way.REPLAY), (Way.API, Way.API)]
)
def test_entries_that_a_block_has_are_recovered_out_of_it_with_its_times(
    came: Way, out: Way
) -> None:
    for message in whole_blocks():
        ledger = Ledger()
        receipt = books(ledger, message, came)
        start = message.directoryBlock.header.timestamp.seconds
        times = {
            hash_: at
            for block in message.entryBlocks
            for hash_, at in EntryBlock.of_message(block).times(start)
        }
        found = [
            (way, height, member_of(payload))
            for way, height, payload in ledger.recovered
            if FactomEvent.FromString(payload).HasField("entryReveal")
        ]
        assert {way for way, _, _ in found} == {out}
        assert {height for _, height, _ in found} == {height_of(message)}
        assert {member.entry.hash for _, _, member in found} == hashes(message)
        assert len(found) == receipt.reveals_recovered == len(hashes(message))
        told = {each.hash: each for each in message.entryBlockEntries}
        for _, _, member in found:
            assert member.entry == told[member.entry.hash]
            assert member.timestamp.seconds == times[member.entry.hash]
            assert member.entityState == 3


def test_an_entry_that_a_block_lists_twice_counts_once_with_its_first_time() -> None:
    message = whole_blocks()[0]
    start = message.directoryBlock.header.timestamp.seconds
    entry = message.entryBlockEntries[0]
    minutes = [bytes(31) + bytes([minute]) for minute in (3, 5)]
    body = (entry.hash, minutes[0], entry.hash, minutes[1])
    block = EntryBlock(entry.chainID, bytes(32), bytes(32), 0, height_of(message), body)
    del message.entryBlocks[:]
    message.entryBlocks.add().CopyFrom(block.message())
    receipts = Receipts([], 0, fetch=lambda _: None)
    book(receipts, message, way=Way.API)
    derived = receipts.take()
    assert (derived.receipts[0].reveals_expected, derived.receipts[0].reveals_recovered) == (1, 1)
    (reveal,) = [
        member_of(payload)
        for _, _, payload in derived.recovered
        if FactomEvent.FromString(payload).HasField("entryReveal")
    ]
    assert reveal.timestamp.seconds == start + 3 * 60


def test_entries_that_are_listed_and_not_told_are_named_until_they_are_fetched() -> None:
    message = max(whole_blocks(), key=lambda each: len(each.entryBlockEntries))
    height = height_of(message)
    ledger = Ledger()
    receipt = books(ledger, without_contents(message))
    assert receipt.reveals_missing == len(hashes(message)) > 1
    assert not receipt.complete
    assert ledger.receipts.wanting(10) == [height]
    ledger.restart()
    assert set(ledger.receipts.missing_entries(height)) == hashes(message)

    entries = list(message.entryBlockEntries)
    ledger.receipts.recovered(height, [EntryReveal(entry=entries[0])])
    (receipt,) = ledger.take()
    assert (receipt.reveals_recovered, receipt.reveals_missing) == (1, len(entries) - 1)
    assert entries[0].hash not in ledger.receipts.missing_entries(height)
    recovered = len(ledger.recovered)
    ledger.receipts.recovered(height, [EntryReveal(entry=each) for each in entries])
    (receipt,) = ledger.take()
    assert (receipt.reveals_recovered, receipt.reveals_missing) == (len(entries), 0)
    assert ledger.receipts.wanting(10) == []
    assert ledger.receipts.missing_entries(height) == ()
    # They are records of the journal already.
    assert len(ledger.recovered) == recovered
    assert not [name for name in ledger.items if name.startswith("receipt/missing")]


def test_a_fetched_entry_with_another_hash_is_none_of_those_that_are_missing() -> None:
    message = whole_blocks()[0]
    ledger = Ledger()
    books(ledger, without_contents(message))
    forged = EntryBlockEntry()
    forged.CopyFrom(message.entryBlockEntries[0])
    forged.content += b"!"
    ledger.receipts.recovered(height_of(message), [EntryReveal(entry=forged)])
    assert ledger.take() == []
    assert set(ledger.receipts.missing_entries(height_of(message))) == hashes(message)


def test_what_is_fetched_for_a_height_that_lacks_nothing_changes_nothing() -> None:
    message = whole_blocks()[0]
    ledger = Ledger()
    books(ledger, message)
    reveals = [EntryReveal(entry=each) for each in message.entryBlockEntries]
    ledger.receipts.recovered(height_of(message), reveals)
    ledger.receipts.recovered(77, reveals)
    assert ledger.take() == []


def test_a_later_copy_of_the_block_brings_the_contents_of_what_is_still_missing() -> None:
    message = max(whole_blocks(), key=lambda each: len(each.entryBlockEntries))
    ledger = Ledger()
    books(ledger, without_contents(message))
    entries = list(message.entryBlockEntries)
    ledger.receipts.recovered(height_of(message), [EntryReveal(entry=entries[0])])
    ledger.take()
    before = len(ledger.recovered)
    receipt = books(ledger, message, Way.API)
    assert (receipt.reveals_recovered, receipt.reveals_missing) == (len(entries), 0)
    brought = [member_of(payload).entry.hash for _, _, payload in ledger.recovered[before:]]
    assert sorted(brought) == sorted(each.hash for each in entries[1:])
    ledger.block(message, Way.API)
    assert ledger.take() == []


@pytest.mark.parametrize("restarted", [False, True])
def test_a_reveal_that_the_feed_brings_after_all_counts_as_seen(*, restarted: bool) -> None:
    message = max(whole_blocks(), key=lambda each: len(each.entryBlockEntries))
    ledger = Ledger()
    books(ledger, without_contents(message))
    if restarted:
        ledger.restart()
    entry = message.entryBlockEntries[0]
    event = FactomEvent(entryReveal=EntryReveal(entry=entry))
    ledger.step(Step(event.SerializeToString()))
    (receipt,) = ledger.take()
    assert (receipt.reveals_seen, receipt.reveals_recovered) == (1, 0)
    assert adds_up(receipt)
    assert entry.hash not in ledger.receipts.missing_entries(height_of(message))


def test_the_missing_of_a_huge_block_are_spread_over_small_rows() -> None:
    count = 30_000
    message = DirectoryBlockCommit()
    message.CopyFrom(summary(whole_blocks()[0]))
    body = [number.to_bytes(2, "big") * 16 for number in range(1, count + 1)]
    block = EntryBlock(b"c" * 32, bytes(32), bytes(32), 0, height_of(message), tuple(body))
    message.entryBlocks.add().CopyFrom(block.message())
    ledger = Ledger()
    # Its hashes do not hold: what is done with it is the same.
    book(ledger.receipts, message, way=Way.API)
    (receipt,) = ledger.take()
    assert receipt.reveals_missing == count
    rows = {name: row for name, row in ledger.items.items() if name.startswith("receipt/miss")}
    assert sum(map(len, rows.values())) == 32 * count
    assert max(map(len, rows.values())) <= 3 * 32 * 1024
    named = ledger.receipts.missing_entries(height_of(message))
    assert len(named) == MOST_NAMED
    ledger.restart()
    ids = [int.from_bytes(each[:8], "big") for each in body]
    ledger.receipts.saw(1, ids)
    (receipt,) = ledger.take()
    assert receipt.reveals_seen == count
    assert receipt.complete
    assert {name.rpartition("/")[0] for name in ledger.items} == {"receipt/heights", "seen"}


# Links, other blocks, the past


def test_links_that_are_proven_later_make_a_new_receipt_and_no_other_does() -> None:
    first, second = blocks("tcp-protobuf-once")[:2]
    ledger = Ledger()
    given = [step for step in steps("tcp-protobuf-once") if _key(event_of(step.payload))]
    for step in given:
        ledger.step(step)
    assert not books(ledger, second, Way.LIVE).links_verified
    ledger.restart()
    told = {each.height: each for each in _after(ledger, first)}
    assert told[height_of(second)].complete
    assert not told[height_of(first)].links_verified
    ledger.receipts.linked(height_of(second))
    ledger.receipts.linked(999)
    assert ledger.take() == []


def _after(ledger: Ledger, message: DirectoryBlockCommit) -> list[BlockReceipt]:
    ledger.block(message, Way.LIVE)
    return ledger.take()


def test_links_once_proven_stay_proven() -> None:
    message = without_contents(whole_blocks()[0])
    receipts = Receipts([], 0, fetch=lambda _: None)
    book(receipts, message, way=Way.REPLAY)
    receipts.block(message, b"k" * 32, way=Way.REPLAY, now=0)
    assert [each.links_verified for each in receipts.take().receipts] == [True]


def test_another_block_of_the_same_height_takes_the_place_of_the_one_before() -> None:
    first, second = whole_blocks()[:2]
    receipts = Receipts([], 0, fetch=lambda _: None)
    receipts.block(without_contents(first), b"1" * 32, way=Way.LIVE, now=0)
    assert receipts.wanting(9) == [height_of(first)]
    second.directoryBlock.header.blockHeight = height_of(first)
    book(receipts, second, way=Way.API, key=b"2" * 32)
    (receipt,) = receipts.take().receipts
    assert receipt.key_merkle_root == b"2" * 32
    assert receipt.reveals_expected == len(hashes(second))
    receipts.tick(GRACE)
    assert receipts.take() == ([], [], {})
    assert receipts.wanting(9) == []


def test_what_is_forgotten_is_accounted_for_anew_and_leaves_nothing() -> None:
    ledger = Ledger()
    given = [without_contents(each) for each in whole_blocks()]
    for message in given:
        ledger.block(message, Way.LIVE)
    ledger.take()
    heights = sorted(set(map(height_of, given)))
    ledger.receipts.forget(heights[1])
    ledger.take()
    assert ledger.receipts.wanting(9) == heights[:1]
    ledger.receipts.forget()
    ledger.take()
    rows = [name for name in ledger.items if not name.startswith("receipt/heights")]
    assert rows == []
    assert ledger.receipts.wanting(9) == ledger.receipts.blind(9) == []
    ledger.receipts.tick(GRACE)
    assert ledger.take() == []
    ledger.restart()
    assert books(ledger, given[0]).reveals_expected == len(hashes(given[0]))


def test_heights_are_told_in_order_and_no_more_than_asked() -> None:
    message = DirectoryBlockCommit()
    message.CopyFrom(summary(whole_blocks()[0]))
    receipts = Receipts([], 0, fetch=lambda _: None)
    heights = [100_000, 7, 300, 255, 256, 70_000]
    for height in heights:
        message.directoryBlock.header.blockHeight = height
        book(receipts, message, way=Way.API)
    assert receipts.blind(4) == sorted(heights)[:4]
    assert receipts.blind(99) == sorted(heights)
    receipts.take()
    assert receipts.blind(99) == sorted(heights)
