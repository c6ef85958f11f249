"""What a simulated node has saved, by height and by the hashes under which its API finds it."""

from __future__ import annotations

from typing import NamedTuple

from bridge.core.binary.admin import AdminBlock
from bridge.core.binary.credits import CreditBlock
from bridge.core.binary.directory import DirectoryBlock
from bridge.core.binary.entries import Entry, EntryBlock
from bridge.core.binary.factoid import FactoidBlock
from bridge.emitter.anchors import WINDOW_BLOCKS, Window
from bridge.emitter.block import Block
from bridge.emitter.inputs import AnchorInfo

__all__ = ["Archive", "Saved"]

Part = AdminBlock | CreditBlock | DirectoryBlock | Entry | EntryBlock | FactoidBlock


class Saved(NamedTuple):
    """A part of a block, and the block that it came with."""

    part: Part
    block: Block


class Archive:
    """Grows with the chain; everything stays in memory."""

    def __init__(self) -> None:
        self._blocks: dict[int, Block] = {}
        self._parts: dict[bytes, Saved] = {}
        self._anchors: dict[int, AnchorInfo] = {}
        self.tip = 0
        """The highest height saved; 0 also before there is any."""

    def add(self, block: Block) -> None:
        """Save `block`."""
        self._blocks[block.height] = block
        self.tip = max(self.tip, block.height)
        parts: list[tuple[bytes, Part]] = [
            (block.directory.hashes().key_merkle_root, block.directory),
            (block.admin.hashes().lookup_hash, block.admin),
            (block.factoid.hashes().key_merkle_root, block.factoid),
            (block.credit.hashes().header_hash, block.credit),
            *((each.hashes().key_merkle_root, each) for each in block.entry_blocks),
            *((each.hash(), each) for each in block.entries),
        ]
        for key, part in parts:
            self._parts.setdefault(key, Saved(part, block))

    def anchor(self, record: AnchorInfo) -> None:
        """Note how far a block is anchored."""
        self._anchors[record.block_height] = record

    def at(self, height: int) -> Block | None:
        """Return the block of that height."""
        return self._blocks.get(height)

    def find(self, key: bytes) -> Saved | None:
        """Return what has that hash: a key Merkle root, or an entry's hash."""
        return self._parts.get(key)

    def anchor_of(self, height: int) -> AnchorInfo | None:
        """Return the record that anchors the block of that height."""
        return self._anchors.get(height)

    def window_of(self, height: int) -> Window | None:
        """Return the first window in Ethereum that the block of that height is in."""
        for last in range(height, height + WINDOW_BLOCKS):
            if last not in self._blocks:
                return None
            record = self._anchors.get(last)
            if record is not None and record.ethereum_confirmed:
                first = max(next(iter(self._blocks)), last + 1 - WINDOW_BLOCKS)
                window = (self._blocks[each].directory for each in range(first, last + 1))
                return Window(first, tuple(d.hashes().key_merkle_root for d in window), record)
        return None
