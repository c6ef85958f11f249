"""`core.completeness`: recorded feeds are proven, and whatever is taken from them is named."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from bridge.core.binary.directory import DirectoryBlock
from bridge.core.binary.entries import EntryBlock
from bridge.core.completeness import MAX_NAMED, Checked, Completeness, Result
from bridge.core.decode import Event, decode
from bridge.core.rebuild import commits, reveals
from bridge.core.routing import ChainFilter
from bridge.model import Kind
from bridge.pb.eventmessages.factomEvents_pb2 import (
    ChainCommit,
    DirectoryBlockCommit,
    EntryCommit,
    EntryReveal,
)
from tests.support.captures import find_capture, not_here
from tests.support.heights import recording

BLOCK = Kind.DIRECTORY_BLOCK_COMMIT
COMMITS = (Kind.CHAIN_COMMIT, Kind.ENTRY_COMMIT)
Item = tuple[Kind, Any]


def recorded(name: str) -> list[Event]:
    capture = find_capture(name)
    if capture is None:
        not_here(name)
    return [event for event in map(decode, capture.payloads()) if event is not None]


def items(name: str) -> list[Item]:
    """Return the messages of a feed, blocks first, each kind in its order."""
    found = [(event.kind, event.member) for event in recorded(name)]
    return sorted(found, key=lambda item: item[0] is not BLOCK)


def proof(
    published: Iterable[Item],
    first: int | None = None,
    last: int | None = None,
    **options: Any,
) -> Completeness:
    found = Completeness(first, last, **options)
    for kind, member in published:
        found.add(kind, member)
    return found


def of(result: Result, what: str) -> Checked:
    return next(line for line in result.checked if line.what == what)


def blocks(published: Iterable[Item]) -> list[DirectoryBlockCommit]:
    return [member for kind, member in published if isinstance(member, DirectoryBlockCommit)]


def height_of(member: Any) -> int | None:
    is_block = isinstance(member, DirectoryBlockCommit)
    return member.directoryBlock.header.blockHeight if is_block else None


def flip(value: bytes) -> bytes:
    return bytes([value[0] ^ 1]) + value[1:]


# What is there


@pytest.mark.parametrize("name", ["tcp-protobuf-once", "tcp-json-once", "udp-protobuf-once"])
def test_a_feed_without_a_gap_is_complete(name: str) -> None:
    result = proof(items(name)).result()
    assert result.complete
    assert (result.first, result.last) == (1, 8)
    assert of(result, "heights")[1:3] == (8, 0)
    assert of(result, "commits")[1:3] == (62, 0)
    assert of(result, "links of blocks")[1:] == (7, 0, "not provable without the block before: 1")


def test_reveals_of_live_blocks_are_not_provable_and_not_missing() -> None:
    published = [item for item in items("tcp-protobuf-once") if item[0] is not Kind.ENTRY_REVEAL]
    result = proof(published).result()
    assert result.complete
    assert of(result, "reveals") == Checked(
        "reveals", 0, 0, "not provable without entry blocks for 5 heights"
    )


def test_a_replay_with_entry_blocks_makes_reveals_provable() -> None:
    published = items("replay-from-height")
    result = proof(published).result()
    assert result.complete
    assert of(result, "heights")[1] == 9
    assert of(result, "reveals")[1:3] == (56, 0)
    without = [item for item in published if item[0] is not Kind.ENTRY_REVEAL]
    assert of(proof(without).result(), "reveals")[1:3] == (56, 56)


def test_a_whole_chain_with_what_is_rebuilt_from_the_api_is_complete() -> None:
    heights = recording("backfill-api")
    if not heights:
        not_here("backfill-api")
    published: list[Item] = []
    for height in heights:
        raw, contents = height.raw, height.contents
        (block,) = {event.directoryBlockCommit.SerializeToString() for event in height.events}
        message = DirectoryBlockCommit.FromString(block)
        published.append((BLOCK, message))
        start = DirectoryBlock.parse(raw.directory).seconds
        published += [
            (COMMITS[isinstance(commit, EntryCommit)], commit)
            for commit in commits(message.entryCreditBlock)
        ]
        for each in map(EntryBlock.parse, raw.entry_blocks):
            published += [(Kind.ENTRY_REVEAL, told) for told in reveals(start, each, contents)]
    published.sort(key=lambda item: item[0] is not BLOCK)
    result = proof(published, 0, max(height.height for height in heights)).result()
    assert result.problems == ()
    assert of(result, "commits")[1:3] == (157, 0)
    assert of(result, "reveals") == Checked("reveals", 156, 0)
    assert of(result, "links of blocks") == Checked("links of blocks", len(heights), 0)

    told = [item for item in published if item[0] is Kind.ENTRY_REVEAL]
    gone = told[77][1]
    lacking = [
        (kind, member)
        for kind, member in published
        if not (isinstance(member, EntryReveal) and member.entry.hash == gone.entry.hash)
    ]
    result = proof(lacking).result()
    assert len(result.problems) == 1
    assert f"the reveal of the entry {gone.entry.hash.hex()} is missing" in result.problems[0]


# What is not


def test_a_gap_is_named_as_one_range() -> None:
    result = proof(items("gap-long")).result()
    assert not result.complete
    assert result.problems[0] == "heights 4 to 25 are missing"
    assert of(result, "heights")[1:3] == (30, 22)


def test_every_commit_that_is_taken_away_is_named() -> None:
    published = items("tcp-protobuf-once")
    listed = [each for block in blocks(published) for each in commits(block.entryCreditBlock)]
    assert len(listed) == 62
    for commit in listed:
        lacking = [
            (kind, member)
            for kind, member in published
            if not (
                isinstance(member, ChainCommit | EntryCommit)
                and member.signature == commit.signature
            )
        ]
        assert len(lacking) < len(published)
        (problem,) = proof(lacking).result().problems
        assert problem.endswith(f"the commit of the entry {commit.entryHash.hex()} is missing")


@pytest.mark.parametrize("field", ["signature", "entryCreditPublicKey", "weld", "credits"])
def test_a_commit_that_differs_in_anything_but_its_state_is_another_one(field: str) -> None:
    published = items("tcp-protobuf-once")
    chosen = next(m for kind, m in published if isinstance(m, ChainCommit))
    for _, member in published:
        if isinstance(member, ChainCommit) and member.entryHash == chosen.entryHash:
            value = getattr(member, field)
            setattr(member, field, flip(value) if isinstance(value, bytes) else value + 1)
    (problem,) = proof(published).result().problems
    assert chosen.entryHash.hex() in problem


@pytest.mark.parametrize("height", range(2, 8))
def test_a_block_that_is_taken_away_is_named(height: int) -> None:
    published = [item for item in items("tcp-protobuf-once") if height_of(item[1]) != height]
    result = proof(published).result()
    assert result.problems == (f"height {height} is missing",)
    assert of(result, "links of blocks")[3] == "not provable without the block before: 2"


def test_a_block_with_a_flipped_hash_is_named_and_proves_nothing() -> None:
    published = items("tcp-protobuf-once")
    block = next(each for each in blocks(published) if height_of(each) == 5)
    block.directoryBlock.keyMerkleRoot = flip(block.directoryBlock.keyMerkleRoot)
    result = proof(published).result()
    assert result.problems[0] == "height 5 is missing"
    assert result.problems[1].startswith("height 5: key-merkle-root: ")
    assert of(result, "hashes of blocks")[1:3] == (8, 1)


def test_a_reveal_with_a_flipped_byte_is_named() -> None:
    published = items("tcp-protobuf-once")
    reveal = next(m for _, m in published if isinstance(m, EntryReveal) and m.entry.content)
    reveal.entry.content = flip(reveal.entry.content)
    (problem,) = proof(published).result().problems
    assert problem == f"entry-reveal: {reveal.entry.hash.hex()} is not the hash of the entry"


def test_a_block_of_another_chain_does_not_follow_and_is_named() -> None:
    published = items("tcp-protobuf-once")
    other = [item for item in items("tcp-json-once") if (height_of(item[1]) or 0) >= 4]
    mixed = [item for item in published if (height_of(item[1]) or 0) < 4]
    result = proof(mixed + other, last=6).result()
    assert any(each.startswith("height 4: previous-key-merkle-root") for each in result.problems)
    assert of(result, "heights")[1:3] == (6, 0)
    assert of(result, "links of blocks")[1:3] == (5, 1)


def test_a_height_with_two_blocks_is_named() -> None:
    published = items("tcp-protobuf-once")
    other = next(m for _, m in items("tcp-json-once") if height_of(m) == 1)
    result = proof([*published[:8], (BLOCK, other), *published[8:]]).result()
    (problem,) = result.problems
    assert problem.startswith("height 1: two-blocks: ")
    assert of(result, "hashes of blocks")[1:3] == (9, 1)


def test_no_more_is_named_than_can_be_read() -> None:
    published = [item for item in items("tcp-protobuf-once") if item[0] is BLOCK]
    result = proof(published).result()
    assert len(result.problems) == MAX_NAMED
    assert result.unnamed == 62 - MAX_NAMED
    most = 2**32 - 1
    holes = ("height 0 is missing", f"heights 9 to {most} are missing")
    assert proof(published, 0, most).result().problems[:2] == holes


# Ranges, orders, repeats


def test_a_range_asks_for_nothing_outside_of_it() -> None:
    published = items("gap-long")
    assert proof(published, 27, 30).result().complete
    assert proof(published, 1, 3).result().complete
    assert proof(published, 3, 4).result().problems == ("height 4 is missing",)
    result = proof(published, 28, 40).result()
    assert result.problems == ("heights 31 to 40 are missing",)
    # The block before the first links it, and is not counted.
    assert of(result, "links of blocks") == Checked("links of blocks", 3, 0)


def test_nothing_at_all_is_not_complete() -> None:
    for first, last in ((None, None), (5, None), (None, 5), (5, 9)):
        result = proof([], first, last).result()
        assert not result.complete
        assert result.first <= result.last


def test_blocks_that_came_late_are_linked_by_a_second_look() -> None:
    published = items("replay-from-height")
    late = [item for item in published if height_of(item[1]) in {2, 3, 4}]
    published = [item for item in published if height_of(item[1]) not in {2, 3, 4}]
    published = published[:6] + late + published[6:]
    found = proof(published)
    assert found.early
    assert of(found.result(), "links of blocks")[3]
    again = proof(published, links=found.links)
    assert not again.early
    result = again.result()
    assert result.complete
    assert of(result, "links of blocks") == Checked("links of blocks", 9, 0)
    assert of(result, "hashes of blocks")[3] == "not provable from here: admin-block 1"


def test_repeats_change_nothing() -> None:
    published = items("tcp-protobuf-once")
    once, twice = proof(published).result(), proof([*published[:8], *published]).result()
    assert twice.complete
    assert [line[1:] for line in once.checked[3:]] == [line[1:] for line in twice.checked[3:]]


def test_what_is_not_published_on_purpose_is_not_missed() -> None:
    published = [item for item in items("replay-from-height") if item[0] is BLOCK]
    off = (*COMMITS, Kind.ENTRY_REVEAL)
    result = proof(published, off=off).result()
    assert result.complete
    assert of(result, "commits")[3] == "switched off: chain-commit, entry-commit"
    assert of(result, "reveals")[3] == "switched off: entry-reveal"


def test_of_other_chains_nothing_is_expected() -> None:
    published = items("replay-from-height")
    listed = [entry for block in blocks(published) for entry in block.entryBlockEntries]
    chain = listed[0].chainID
    own = {entry.hash for entry in listed if entry.chainID == chain}
    filter_ = ChainFilter.of([chain])
    passing = [item for item in published if filter_.passes(*item)]
    assert len(passing) < len(published)
    result = proof(passing, chains=filter_).result()
    assert result.complete
    assert of(result, "reveals")[1] == len(own) < len({entry.hash for entry in listed})
