"""Blocks that nothing else speaks for yet, and another chain that grows beside the believed one.

Whoever can send to the bridge can make a block whose hashes hold, at any height. So a block far
from all others waits here until another block, a minute or the node's API says that the chain is
there; and a block in the place of a believed one is followed, in case the chain began again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import orjson

from bridge.core.chain import Block, pack_block, unpack_block
from bridge.model import Way

__all__ = ["ADOPTED_AFTER", "MOST_DOUBTS", "Doubt", "Doubts", "Rival"]

MOST_DOUBTS = 64
"""Blocks in doubt at once; beyond that the oldest is forgotten, and counted."""

ADOPTED_AFTER = 3
"""Blocks by which another chain must grow, while the believed one does not, to be believed."""

_ROW = "heights/doubts"


class Doubt(NamedTuple):
    """A block in doubt."""

    block: Block
    way: Way
    since: float
    """Monotonic seconds."""
    highest: int | None
    """The highest believed height when it came."""


class Doubts:
    """At most `MOST_DOUBTS` of them."""

    def __init__(self, items: Iterable[tuple[str, bytes]], now: float) -> None:
        """Take what was stored; their time begins anew."""
        self.dropped = 0
        """Blocks that were given up, for any reason."""
        self._all: dict[tuple[int, bytes], Doubt] = {}
        self._dirty = False
        for name, value in items:
            if name == _ROW:
                for stored, way, highest in orjson.loads(value):
                    block = unpack_block(bytes.fromhex(stored))
                    self._all[_key(block)] = Doubt(block, Way(way), now, highest)

    def __len__(self) -> int:
        return len(self._all)

    def ascending(self) -> Sequence[Doubt]:
        """Return them by height."""
        return sorted(self._all.values(), key=lambda doubt: doubt.block.height)

    def oldest(self) -> Doubt | None:
        """Return the one that came first."""
        return next(iter(self._all.values()), None)

    def at(self, height: int) -> Block | None:
        """Return the latest one of `height`."""
        found = [doubt.block for doubt in self._all.values() if doubt.block.height == height]
        return found[-1] if found else None

    def speak_for(self, block: Block) -> bool:
        """Whether one of them names `block`, or is named by it."""
        return any(
            block.names(doubt.block) or doubt.block.names(block) for doubt in self._all.values()
        )

    def add(self, doubt: Doubt) -> None:
        """Keep `doubt`, if it is not there yet."""
        key = _key(doubt.block)
        if key in self._all:
            return
        if len(self._all) >= MOST_DOUBTS:
            self.drop(next(iter(self._all.values())).block)
        self._all[key] = doubt
        self._dirty = True

    def discard(self, block: Block) -> None:
        """Let go of `block`, which is believed now; it need not be there."""
        self._dirty = self._all.pop(_key(block), None) is not None or self._dirty

    def drop(self, block: Block) -> None:
        """Give `block` up, which need not be there."""
        self.discard(block)
        self.dropped += 1

    def clear(self) -> None:
        """Forget all."""
        self._dirty = self._dirty or bool(self._all)
        self._all.clear()

    def take(self) -> dict[str, bytes | None]:
        """Return the items that changed since the last time."""
        if not self._dirty:
            return {}
        self._dirty = False
        stored = [
            (pack_block(doubt.block).hex(), doubt.way, doubt.highest)
            for doubt in self._all.values()
        ]
        return {_ROW: orjson.dumps(stored) if stored else None}


@dataclass(slots=True)
class Rival:
    """Another chain: the latest blocks that came of it, in the place of believed ones."""

    blocks: list[Block]
    """Ascending, each names the one before."""
    grown: int = 0
    """Blocks by which it grew since the believed chain last did."""
    outgrown: int = 0
    """Blocks by which the believed chain grew since this one last did."""

    def knows(self, block: Block) -> bool:
        """Whether `block` is one of its latest."""
        return any(
            block.links.key_merkle_root == known.links.key_merkle_root for known in self.blocks
        )

    def continues(self, block: Block) -> bool:
        """Whether `block` is its next one."""
        return block.names(self.blocks[-1])

    def grow(self, block: Block) -> bool:
        """Take the next one; return whether it is to be believed now."""
        self.blocks = [*self.blocks[-ADOPTED_AFTER:], block]
        self.grown += 1
        self.outgrown = 0
        return self.grown >= ADOPTED_AFTER

    def outgrow(self) -> bool:
        """Note that the believed chain grew; return whether this one is to be forgotten."""
        self.outgrown += 1
        self.grown = 0
        return self.outgrown >= ADOPTED_AFTER

    def stored(self) -> list[object]:
        """Return what `restored` takes, fit for JSON."""
        return [[pack_block(block).hex() for block in self.blocks], self.grown, self.outgrown]

    @classmethod
    def restored(cls, blocks: list[str], grown: int, outgrown: int) -> Rival:
        """Return the rival that `stored` was."""
        return cls([unpack_block(bytes.fromhex(block)) for block in blocks], grown, outgrown)


def _key(block: Block) -> tuple[int, bytes]:
    return block.height, block.links.key_merkle_root
