"""`core.hashing`: against the network's document, and against made-up trees."""

import hashlib
from collections.abc import Callable

from bridge.core.binary.entries import Entry
from bridge.core.hashing import (
    ZERO_HASH,
    chain_id,
    chain_id_hash,
    entry_hash,
    merkle_root,
    sha256,
    weld,
)
from tests.support.heights import extract

CHAIN = bytes.fromhex("954d5a49fd70d9b8bcdb35d252267829957f7ef7fa6c74f88419bdc5e82209f4")


def test_an_entry_of_the_networks_document_has_the_hash_that_it_says() -> None:
    entry = Entry(CHAIN, (), b"PayloadHere")
    assert entry.raw.hex().endswith("00005061796c6f616448657265")
    expected = "72177d733dcd0492066b79c5f3e417aef7f22909674f7dc351ca13b04742bb91"
    assert entry_hash(entry.raw).hex() == expected


def test_a_chain_is_named_by_its_first_entrys_external_ids() -> None:
    assert chain_id([b"test"]) == CHAIN
    assert chain_id([b"te", b"st"]) != CHAIN
    assert chain_id([]) == hashlib.sha256(b"").digest()


def test_a_chain_commit_ties_chain_and_entry() -> None:
    seen = 0
    for height in extract():
        entries = {hash_: Entry.parse(raw) for hash_, raw in height.contents.items()}
        for item in height.events[-1].directoryBlockCommit.entryCreditBlock.entries:
            commit = item.chainCommit
            entry = entries.get(commit.entryHash)
            if entry is not None:
                assert chain_id(entry.external_ids) == entry.chain_id
                assert commit.chainIDHash == chain_id_hash(entry.chain_id)
                assert commit.weld == weld(commit.entryHash, entry.chain_id)
                seen += 1
    assert seen >= 3


def recursive(leaves: list[bytes], join: Callable[[bytes, bytes], bytes]) -> bytes:
    """The same by another way: from the top down."""
    if len(leaves) == 1:
        return leaves[0]
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    right = leaves[half:]
    while len(right) < half:
        # The missing half repeats, level by level, what is last there.
        right = right + right[-(len(right) & -len(right)) :]
    return join(recursive(leaves[:half], join), recursive(right, join))


def test_a_merkle_root_pairs_an_odd_last_with_itself() -> None:
    leaves = [sha256(bytes([number])) for number in range(40)]
    for count in range(1, 40):
        expected = recursive(leaves[:count], lambda left, right: sha256(left + right))
        assert merkle_root(leaves[:count]) == expected
    assert len({merkle_root(leaves[:count]) for count in range(1, 40)}) == 39
    assert merkle_root([]) == ZERO_HASH
