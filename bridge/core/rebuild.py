"""Builds the message that the node would have replayed from what its API answers.

The API gives every part of a height in its binary form: `dblock-`, `ablock-`, `ecblock-` and
`fblock-by-height` (`rawdata`), and `raw-data` for entry blocks and entries. A part is taken only if
it has the hash under which the directory lists it, so what is rebuilt holds as far as the
directory's own key does, which the caller compares with a link or a listing that it trusts.

What the bridge publishes in place of commits and reveals that did not arrive is made here too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from bridge.core.binary.admin import AdminBlock
from bridge.core.binary.credits import CreditBlock
from bridge.core.binary.directory import (
    ADMIN_CHAIN,
    CREDIT_CHAIN,
    FACTOID_CHAIN,
    DirectoryBlock,
)
from bridge.core.binary.entries import Entry, EntryBlock, reveal
from bridge.core.binary.factoid import FactoidBlock
from bridge.core.verify import Links
from bridge.errors import DecodeError
from bridge.pb.eventmessages.entryBlock_pb2 import EntryBlockEntry
from bridge.pb.eventmessages.factomEvents_pb2 import (
    ChainCommit,
    DirectoryBlockCommit,
    EntryCommit,
    EntryCreditBlock,
    EntryReveal,
)

__all__ = ["HASH_MISMATCH", "RawHeight", "Rebuilt", "commits", "rebuild", "reveals"]

HASH_MISMATCH = "hash-mismatch"
"""Reason of the `DecodeError` for a part that is not the one that was asked for, or is missing."""


@dataclass(frozen=True, slots=True)
class RawHeight:
    """The binary parts of one height."""

    directory: bytes
    admin: bytes
    credit: bytes
    factoid: bytes
    entry_blocks: tuple[bytes, ...]
    """In the order of the directory, see `DirectoryBlock.entry_blocks`."""


class Rebuilt(NamedTuple):
    """A block as the node would have replayed it, and what its successor must name."""

    message: DirectoryBlockCommit
    links: Links


def rebuild(raw: RawHeight, contents: Mapping[bytes, bytes] | None = None) -> Rebuilt:
    """Return the block of which `raw` holds the parts.

    Args:
        raw: the parts of the height.
        contents: binary form of every entry by its hash, for the message of a node with the
            setting `EventBroadcastContent=always`; None for that of any other, which has the
            entries without content and so needs none of them.

    Raises:
        DecodeError: a part is unreadable (`invalid-binary`), or is not what the directory lists
            (`hash-mismatch`).
    """
    directory = DirectoryBlock.parse(raw.directory)
    admin, credit = AdminBlock.parse(raw.admin), CreditBlock.parse(raw.credit)
    factoid = FactoidBlock.parse(raw.factoid)
    blocks = [EntryBlock.parse(each) for each in raw.entry_blocks]
    factoid_hashes, credit_hashes = factoid.hashes(), credit.hashes()

    _must_be(directory.key_of(ADMIN_CHAIN), admin.hashes().lookup_hash, "admin block")
    _must_be(directory.key_of(CREDIT_CHAIN), credit_hashes.header_hash, "entry-credit block")
    _must_be(directory.key_of(FACTOID_CHAIN), factoid_hashes.key_merkle_root, "factoid block")
    if len(blocks) != len(directory.entry_blocks):
        listed = len(directory.entry_blocks)
        raise DecodeError(HASH_MISMATCH, f"{listed} entry blocks are listed, {len(blocks)} given")
    for listed_block, block in zip(directory.entry_blocks, blocks, strict=True):
        _must_be(listed_block.key, block.hashes().key_merkle_root, "entry block")

    hashes = directory.hashes()
    message = DirectoryBlockCommit(
        directoryBlock=directory.message(),
        adminBlock=admin.message(),
        factoidBlock=factoid.message(),
        entryCreditBlock=credit.message(),
        entryBlocks=[block.message() for block in blocks],
        entryBlockEntries=[
            EntryBlockEntry(hash=each, chainID=block.chain_id)
            if contents is None
            else _entry(each, contents).message()
            for block in blocks
            for each in block.entry_hashes()
        ],
    )
    links = Links(
        directory.height,
        directory.network_id,
        hashes.key_merkle_root,
        hashes.full_hash,
        factoid_hashes.ledger_key_merkle_root,
        credit_hashes.full_hash,
    )
    return Rebuilt(message, links)


def commits(block: EntryCreditBlock) -> Iterator[ChainCommit | EntryCommit]:
    """Yield the commits of a block, as they are published in place of those that did not arrive.

    Every directory block has them, live ones too, so nothing need be asked of the node.
    """
    for item in block.entries:
        if item.HasField("chainCommit"):
            yield item.chainCommit
        elif item.HasField("entryCommit"):
            yield item.entryCommit


def reveals(
    start: int, block: EntryBlock, contents: Mapping[bytes, bytes]
) -> Iterator[EntryReveal]:
    """Yield a reveal for each entry of `block` that `contents` has, once for each.

    Args:
        start: of the directory block, in seconds since 1970: `DirectoryBlock.seconds`.
        block: the entry block that lists the entries.
        contents: binary form of entries by their hash; those that are missing are passed over.

    Raises:
        DecodeError: what is given for a hash is no entry, or has another hash.
    """
    seen: set[bytes] = set()
    for each, at in block.times(start):
        if each in contents and each not in seen:
            seen.add(each)
            yield reveal(_entry(each, contents), at)


def _entry(hash_: bytes, contents: Mapping[bytes, bytes]) -> Entry:
    if hash_ not in contents:
        raise DecodeError(HASH_MISMATCH, f"the entry {hash_.hex()} is missing")
    entry = Entry.parse(contents[hash_])
    _must_be(hash_, entry.hash(), "entry")
    return entry


def _must_be(expected: bytes | None, found: bytes, what: str) -> None:
    if found != expected:
        shown = expected.hex() if expected else "none at all"
        raise DecodeError(
            HASH_MISMATCH, f"the {what} has the hash {found.hex()}, listed is {shown}"
        )
