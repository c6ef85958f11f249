"""What a node has to tell: the values that the event service makes events of.

Commits and entries are those of `bridge.core.binary`, which reads them from their binary forms.
Times are milliseconds since 1970, true ones: the sender's quirks are the service's business.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from bridge.core.binary.admin import AdminBlock
from bridge.core.binary.commits import ChainCommit, EntryCommit
from bridge.core.binary.credits import CreditBlock
from bridge.core.binary.directory import DirectoryBlock
from bridge.core.binary.entries import Entry, EntryBlock
from bridge.core.binary.factoid import FactoidBlock
from bridge.core.hashing import ZERO_HASH
from bridge.pb.eventmessages import (
    adminBlock_pb2 as admin_block,
    directoryBlock_pb2 as directory_block,
    entryBlock_pb2 as entry_block,
    factoidBlock_pb2 as factoid_block,
    factomEvents_pb2 as pb,
)

__all__ = [
    "AnchorInfo",
    "ChainCommit",
    "DirectoryBlockState",
    "Entity",
    "Entry",
    "EntryCommit",
    "EntryReveal",
]


@dataclass(frozen=True, slots=True)
class EntryReveal:
    """An entry as it is made public; the time is that of the message."""

    entry: Entry
    milliseconds: int


Entity = ChainCommit | EntryCommit | EntryReveal
"""What is registered, and then accepted or rejected."""


@dataclass(frozen=True, slots=True)
class DirectoryBlockState:
    """A directory block and all that belongs to it, as messages of the feed.

    Factoid transactions may have their true nanoseconds or the node's own, 1,000 times too small:
    the two cannot be mistaken for each other.
    """

    directory_block: directory_block.DirectoryBlock
    admin_block: admin_block.AdminBlock
    factoid_block: factoid_block.FactoidBlock
    entry_credit_block: pb.EntryCreditBlock
    entry_blocks: tuple[entry_block.EntryBlock, ...] = ()
    entries: tuple[entry_block.EntryBlockEntry, ...] = ()

    @classmethod
    def of_blocks(
        cls,
        directory: DirectoryBlock,
        admin: AdminBlock,
        factoid: FactoidBlock,
        credit: CreditBlock,
        entry_blocks: Iterable[EntryBlock] = (),
        entries: Iterable[Entry] = (),
    ) -> Self:
        """Return the state that the blocks make, as read from their binary forms."""
        return cls(
            directory.message(),
            admin.message(),
            factoid.message(),
            credit.message(),
            tuple(block.message() for block in entry_blocks),
            tuple(entry.message() for entry in entries),
        )


@dataclass(frozen=True, slots=True)
class AnchorInfo:
    """How far a directory block is anchored in Bitcoin and Ethereum.

    A node has 32 zero bytes where there is no hash yet.
    """

    directory_block_hash: bytes
    directory_block_merkle_root: bytes
    block_height: int
    milliseconds: int
    btc_tx_hash: bytes = ZERO_HASH
    btc_tx_offset: int = 0
    btc_block_height: int = 0
    btc_block_hash: bytes = ZERO_HASH
    btc_confirmed: bool = False
    ethereum_anchor_record_entry_hash: bytes = ZERO_HASH
    ethereum_confirmed: bool = False
