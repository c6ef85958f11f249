"""`core.rebuild`: from the API's answers the very bytes that the node replays."""

from dataclasses import replace

import pytest

from bridge.core.binary.commits import ChainCommit, EntryCommit as PaidEntry
from bridge.core.binary.credits import CreditBlock
from bridge.core.binary.directory import DirectoryBlock
from bridge.core.binary.entries import Entry, EntryBlock
from bridge.core.rebuild import HASH_MISMATCH, RawHeight, commits, rebuild, reveals
from bridge.core.verify import verify
from bridge.errors import DecodeError
from bridge.pb.eventmessages.factomEvents_pb2 import EntityState, EntryCommit
from tests.support.captures import not_here
from tests.support.heights import RecordedHeight, extract, recording

COMMITTED = EntityState.COMMITTED_TO_DIRECTORY_BLOCK
FULL = "backfill-api"  # recorded with `EventBroadcastContent=always`


def check(height: RecordedHeight) -> int:
    """Rebuild the height and hold it against each of its payloads."""
    rebuilt = rebuild(height.raw, height.contents if height.capture == FULL else None)
    for payload, event in zip(height.payloads, height.events, strict=True):
        message = type(rebuilt.message)()
        message.CopyFrom(rebuilt.message)
        if event.eventSource == 0:  # a live block comes without them
            del message.entryBlocks[:]
            del message.entryBlockEntries[:]
        data = message.SerializeToString()
        assert payload.endswith(data)
        assert data == event.directoryBlockCommit.SerializeToString()
    return len(height.payloads)


@pytest.mark.parametrize("height", extract(), ids=lambda each: f"{each.capture}-{each.height}")
def test_a_height_of_the_extract_is_rebuilt_byte_for_byte(height: RecordedHeight) -> None:
    assert check(height) > 0


@pytest.mark.parametrize(
    ("name", "blocks"), [("backfill-api", 141), ("gap-api-replay", 35), ("gap-api", 7)]
)
def test_every_block_of_the_recordings_is_rebuilt_byte_for_byte(name: str, blocks: int) -> None:
    heights = recording(name)
    if not heights:
        not_here(name)
    assert sum(map(check, heights)) == blocks


def test_what_is_rebuilt_holds_and_names_its_successor() -> None:
    links = None
    for height in (each for each in extract() if each.capture == FULL and each.height < 7):
        rebuilt = rebuild(height.raw, height.contents)
        found = verify(rebuilt.message, links)
        assert found.holds
        # Only the genesis block adds a federated server.
        assert found.unproven == (("admin-block",) if height.height == 0 else ())
        assert found.links == rebuilt.links
        links = rebuilt.links


def some_height() -> RecordedHeight:
    return next(each for each in extract() if each.capture == FULL and each.height == 3)


@pytest.mark.parametrize("part", ["admin", "credit", "factoid", "directory", "entry_blocks"])
def test_a_part_of_another_height_is_refused(part: str) -> None:
    height = some_height()
    other = next(each for each in extract() if each.capture == FULL and each.height == 4).raw
    wrong = replace(height.raw, **{part: getattr(other, part)})
    with pytest.raises(DecodeError) as caught:
        rebuild(wrong, height.contents)
    assert caught.value.reason == HASH_MISMATCH


def test_missing_and_wrong_entries_are_refused() -> None:
    height = some_height()
    contents = height.contents
    first = next(iter(contents))
    chain = Entry.parse(contents[first]).chain_id
    for wrong in ({}, contents | {first: Entry(chain, (), b"forged").raw}):
        with pytest.raises(DecodeError) as caught:
            rebuild(height.raw, wrong)
        assert caught.value.reason == HASH_MISMATCH
    with pytest.raises(DecodeError):
        rebuild(height.raw, contents | {first: b""})
    with pytest.raises(DecodeError):
        rebuild(replace(height.raw, entry_blocks=height.raw.entry_blocks[:-1]), contents)
    with pytest.raises(DecodeError):
        rebuild(RawHeight(b"", b"", b"", b"", ()))


def test_commits_are_those_of_the_block_in_its_order_and_state() -> None:
    seen = 0
    for height in extract():
        told = list(commits(height.events[-1].directoryBlockCommit.entryCreditBlock))
        items = CreditBlock.parse(height.raw.credit).items
        expected = [item.message() for item in items if isinstance(item, ChainCommit | PaidEntry)]
        assert told == expected
        assert all(commit.entityState == COMMITTED for commit in told)
        seen += len(told)
    assert seen > 100


def test_reveals_hold_what_was_revealed_and_the_blocks_own_time() -> None:
    height = some_height()
    start = DirectoryBlock.parse(height.raw.directory).seconds
    seen = 0
    for raw in height.raw.entry_blocks:
        block = EntryBlock.parse(raw)
        told = list(reveals(start, block, height.contents))
        assert [each.entry.hash for each in told] == list(block.entry_hashes())
        for each in told:
            assert each.entityState == COMMITTED
            assert each.entry == Entry.parse(height.contents[each.entry.hash]).message()
            assert 0 < each.timestamp.seconds - start <= 600
            assert not each.timestamp.nanos
            seen += 1
        doubled = replace(block, body=block.body * 2)
        assert list(reveals(start, doubled, height.contents)) == told
        assert list(reveals(start, block, {})) == []
    assert seen == 3


def test_a_commit_that_is_made_anew_has_its_payers_time() -> None:
    height = some_height()
    found = list(commits(rebuild(height.raw).message.entryCreditBlock))
    assert found
    for commit in found:
        assert commit.timestamp.nanos % 1_000_000 == 0
        assert isinstance(commit, EntryCommit) or commit.weld
