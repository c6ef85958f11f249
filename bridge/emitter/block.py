"""What grows: the blocks of a height, what was written into them, and how much that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from bridge.core.binary.admin import AdminBlock
from bridge.core.binary.commits import ChainCommit, EntryCommit
from bridge.core.binary.credits import CreditBlock
from bridge.core.binary.directory import DirectoryBlock
from bridge.core.binary.entries import Entry, EntryBlock
from bridge.core.binary.factoid import FactoidBlock
from bridge.emitter.inputs import DirectoryBlockState, EntryReveal
from bridge.errors import UsageError

__all__ = ["Block", "Growth", "Load", "Written"]

_LARGEST_CONTENT = 10_000


@dataclass(frozen=True, slots=True)
class Load:
    """What is written into each block."""

    chains: int = 1
    entries: int = 10
    """Into chains that there are; the first of a chain comes on top."""
    transactions: int = 1
    smallest: int = 0
    """Bytes of content."""
    largest: int = 1024

    def __post_init__(self) -> None:
        if min(self.chains, self.entries, self.transactions, self.smallest) < 0:
            raise UsageError("a load has no negative numbers")
        if not self.smallest <= self.largest <= _LARGEST_CONTENT:
            raise UsageError(f"contents have {self.smallest} to {_LARGEST_CONTENT} bytes")


@dataclass(frozen=True, slots=True)
class Block:
    """A height: the directory block and all that it lists."""

    directory: DirectoryBlock
    admin: AdminBlock
    factoid: FactoidBlock
    credit: CreditBlock
    entry_blocks: tuple[EntryBlock, ...] = ()
    entries: tuple[Entry, ...] = ()
    """In the order of the entry blocks."""

    @property
    def height(self) -> int:
        """The height."""
        return self.directory.height

    def live(self) -> DirectoryBlockState:
        """Return it as it is emitted when it is saved: without entry blocks."""
        return DirectoryBlockState.of_blocks(self.directory, self.admin, self.factoid, self.credit)

    def whole(self) -> DirectoryBlockState:
        """Return it as it is replayed."""
        return DirectoryBlockState.of_blocks(
            self.directory, self.admin, self.factoid, self.credit, self.entry_blocks, self.entries
        )


class Written(NamedTuple):
    """Something that a user wrote: paid for, then revealed."""

    commit: ChainCommit | EntryCommit
    reveal: EntryReveal


class Growth(NamedTuple):
    """A block, and what came in during each of its ten minutes."""

    block: Block
    minutes: tuple[tuple[Written, ...], ...]
