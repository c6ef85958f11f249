"""The chain that grows: every block holds and links, and is what was written into it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bridge.core.binary.admin import AdminBlock
from bridge.core.binary.commits import ChainCommit, EntryCommit
from bridge.core.binary.credits import BalanceIncrease, CreditBlock
from bridge.core.binary.directory import DirectoryBlock
from bridge.core.binary.entries import Entry, EntryBlock
from bridge.core.binary.factoid import FactoidBlock
from bridge.core.hashing import chain_id, chain_id_hash, merkle_root, weld
from bridge.core.verify import Verification, verify
from bridge.emitter.anchors import closes_window, in_bitcoin, in_ethereum, path
from bridge.emitter.block import Block, Growth, Load
from bridge.emitter.chain import Chain
from bridge.emitter.config import Broadcast
from bridge.emitter.mapping import Mapper
from bridge.errors import UsageError

START = 1_767_225_600_000
LENGTH = 600_000
ALWAYS = Mapper(Broadcast.ALWAYS, send_state_change=False)

LOADS = [
    Load(),
    Load(chains=0, entries=0, transactions=0),
    Load(chains=0, entries=3),
    Load(chains=20, entries=0, smallest=0, largest=0),
    Load(chains=3, entries=60, transactions=9, smallest=0, largest=10_000),
]


def grown(
    number: int, *, seed: int = 1, first: int = 0, load: Load | None = None, length: int = LENGTH
) -> list[Growth]:
    chain = Chain(seed, first=first, load=load)
    return [chain.grow(START + at * length, length) for at in range(number)]


def verified(growths: list[Growth], *, live: bool = False) -> Iterator[Verification]:
    links = None
    for growth in growths:
        event = (
            ALWAYS.live_block(growth.block.live())
            if live
            else ALWAYS.replayed_block(growth.block.whole())
        )
        found = verify(event.directoryBlockCommit, links)
        yield found
        links = found.links


def raw(block: Block) -> list[bytes]:
    return [
        block.directory.raw,
        block.admin.raw,
        block.factoid.raw,
        block.credit.raw,
        *(each.raw for each in block.entry_blocks),
        *(each.raw for each in block.entries),
    ]


@pytest.mark.parametrize("load", LOADS)
def test_every_block_holds_and_links(load: Load) -> None:
    found = list(verified(grown(60, load=load)))
    assert [each.failures for each in found] == [()] * 60
    assert [each.height for each in found] == list(range(60))
    # Of the genesis block the feed leaves out a height within the admin block.
    assert found[0].unproven == ("admin-block",)
    assert {each.unproven for each in found[1:]} == {()}


def test_live_blocks_lack_only_their_entry_blocks() -> None:
    found = list(verified(grown(10), live=True))
    assert all(each.holds for each in found)
    assert {each.unproven for each in found[1:]} == {("entry-block",)}


def test_a_chain_can_begin_at_any_height() -> None:
    first = 4_294_967_000
    growths = grown(30, first=first)
    found = list(verified(growths))
    assert [each.height for each in found] == list(range(first, first + 30))
    assert all(each.holds for each in found)
    assert growths[0].block.directory.previous_key_merkle_root != bytes(32)


@pytest.mark.parametrize("length", [LENGTH, 10, 1_000])
def test_the_same_seed_gives_the_same_bytes_and_another_does_not(length: int) -> None:
    def bytes_of(seed: int) -> list[list[bytes]]:
        return [raw(growth.block) for growth in grown(12, seed=seed, length=length)]

    assert bytes_of(7) == bytes_of(7)
    assert bytes_of(7) != bytes_of(8)
    assert all(found.holds for found in verified(grown(12, seed=7, length=length)))


def test_the_binary_forms_give_the_same_parts_again() -> None:
    for growth in grown(30, load=LOADS[-1]):
        block = growth.block
        assert DirectoryBlock.parse(block.directory.raw) == block.directory
        assert AdminBlock.parse(block.admin.raw) == block.admin
        assert FactoidBlock.parse(block.factoid.raw) == block.factoid
        assert CreditBlock.parse(block.credit.raw) == block.credit
        assert [EntryBlock.parse(each.raw) for each in block.entry_blocks] == [*block.entry_blocks]
        assert [Entry.parse(each.raw) for each in block.entries] == [*block.entries]


def test_a_block_holds_what_was_written_and_nothing_else() -> None:
    load = Load(chains=2, entries=30, transactions=3)
    opened: set[bytes] = set()
    for growth in grown(20, load=load)[1:]:
        block, written = growth.block, [each for minute in growth.minutes for each in minute]
        commits = [each.commit for each in written]
        paid = [item for item in block.credit.items if isinstance(item, ChainCommit | EntryCommit)]
        assert paid == commits
        chains = sum(isinstance(each, ChainCommit) for each in commits)
        # Where there is no chain yet, an entry opens one.
        assert chains == load.chains or (block.height == 1 and chains == load.chains + 1)
        assert len(written) == load.chains + load.entries
        assert {each.reveal.entry for each in written} == set(block.entries)
        listed = [hash_ for each in block.entry_blocks for hash_ in each.entry_hashes()]
        assert listed == [entry.hash() for entry in block.entries]
        for commit, reveal in written:
            entry = reveal.entry
            assert commit.entry_hash == entry.hash()
            assert commit.milliseconds < reveal.milliseconds
            if isinstance(commit, ChainCommit):
                assert entry.chain_id == chain_id(entry.external_ids)
                assert commit.chain_id_hash == chain_id_hash(entry.chain_id)
                assert commit.weld == weld(entry.hash(), entry.chain_id)
                opened.add(entry.chain_id)
            assert entry.chain_id in opened
        bought = [item for item in block.credit.items if isinstance(item, BalanceIncrease)]
        assert len(bought) == load.transactions
        assert sum(map(len, block.factoid.minutes)) == load.transactions + 1


def test_minutes_and_times_agree() -> None:
    for at, growth in enumerate(grown(10)):
        start = START + at * LENGTH
        assert growth.block.directory.seconds * 1000 == start
        for minute, written in enumerate(growth.minutes, 1):
            for commit, _ in written:
                assert (
                    start + (minute - 1) * 60_000 <= commit.milliseconds < start + minute * 60_000
                )


def test_every_25th_block_grants_and_pays_what_the_one_before_granted() -> None:
    blocks = [growth.block for growth in grown(80)]
    granting = [block.height for block in blocks if len(block.admin.entries) > 1]
    assert granting == [25, 50, 75]
    for before, block in ((25, 50), (50, 75)):
        assert (
            blocks[block].factoid.minutes[0][0].outputs
            == (blocks[before].admin.entries[1].values[0])
        )


def test_an_anchor_names_the_block() -> None:
    block = grown(3)[-1].block
    record = in_bitcoin(block, START)
    root = block.directory.hashes().key_merkle_root
    assert record.block_height == block.height
    # Source: factomd, CreateUpdatedDirBlockInfoFromAnchorRecord: both are the key Merkle root.
    assert record.directory_block_merkle_root == record.directory_block_hash == root
    assert len(record.btc_tx_hash) == len(record.btc_block_hash) == 32
    # Source: factomd, DirBlockInfo.Init: zero bytes until there is a hash.
    assert record.ethereum_anchor_record_entry_hash == bytes(32)
    assert not record.ethereum_confirmed


def test_an_anchor_in_ethereum_keeps_what_is_in_bitcoin() -> None:
    record = in_bitcoin(grown(3)[-1].block, START)
    both = in_ethereum(record)
    assert both.ethereum_confirmed
    assert both.btc_confirmed
    assert both.ethereum_anchor_record_entry_hash != bytes(32)
    assert both.btc_tx_hash == record.btc_tx_hash
    assert [height for height in range(31) if closes_window(height)] == [0, 10, 20, 30]


@pytest.mark.parametrize("count", range(1, 12))
def test_every_path_ends_at_the_merkle_root(count: int) -> None:
    leaves = [bytes([at]) * 32 for at in range(count)]
    for at in range(count):
        steps = list(path(leaves, at))
        assert not steps or leaves[at] in steps[0][:2]
        assert ([*(step.top for step in steps)] or leaves)[-1] == merkle_root(leaves)


@pytest.mark.parametrize(
    "wrong", [{"entries": -1}, {"smallest": 5, "largest": 4}, {"largest": 10_001}]
)
def test_loads_that_no_block_can_have_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        Load(**wrong)
