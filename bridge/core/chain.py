"""The blocks that are there, and how they link.

Of every height a fingerprint of its key is kept. What links are checked with is kept only where it
can still be needed: of the last block of each run of heights what the next one must name, of the
first block of each run what it names. A long chain without holes has one of each.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from bridge.core.hashing import HASH_BYTES, ZERO_HASH
from bridge.core.ranges import Ranges
from bridge.core.table import Table
from bridge.core.verify import Links

__all__ = ["MAX_EDGES", "Block", "Chain", "pack_block", "unpack_block"]

MAX_EDGES = 16_384
"""Runs whose ends are known at most; beyond that the oldest ends are forgotten, and the links
there stay unproven."""

_TABLE, _UPPER, _LOWER = "heights/key", "heights/upper/", "heights/lower/"
_PRINT_BYTES = 8
_NONE = bytes(1 + _PRINT_BYTES)
_PRESENT, _LINKED = 1, 2
_LEDGER, _CREDIT = 1, 2
_LINKS = struct.Struct(f">BII{HASH_BYTES}s{HASH_BYTES}s{HASH_BYTES}s{HASH_BYTES}s")


class Block(NamedTuple):
    """What is known of a block whose own hashes hold."""

    links: Links
    previous_key: bytes
    """The key that it names for the block below."""

    @property
    def height(self) -> int:
        """Its height, as its hashes cover it."""
        return self.links.height

    def names(self, below: Block) -> bool:
        """Whether it names `below` as the block before it."""
        return self.height == below.height + 1 and self.previous_key == below.links.key_merkle_root


class Chain:
    """Blocks that are believed."""

    def __init__(self, items: Iterable[tuple[str, bytes]] = ()) -> None:
        """Take what was stored; pass over the items of others."""
        self._upper: dict[int, Links] = {}
        self._lower: dict[int, bytes] = {}
        chunks = []
        for name, value in items:
            if name.startswith(_TABLE):
                chunks.append((name, value))
            elif name.startswith(_UPPER):
                links = _unpack_links(value)
                self._upper[links.height] = links
            elif name.startswith(_LOWER):
                self._lower[int(name.removeprefix(_LOWER), 16)] = value
        self._table = Table(_TABLE, len(_NONE), chunks)
        self.present = Ranges(height for height, _ in self._table)
        self._changed: dict[str, bytes | None] = {}

    def links(self, height: int) -> Links | None:
        """Return what the block above `height` must name, where that is kept."""
        return self._upper.get(height)

    def named_below(self, height: int) -> bytes | None:
        """Return the key that the block of `height` names for the one below, where it is kept."""
        return self._lower.get(height)

    def holds(self, links: Links) -> bool:
        """Whether it is this very block that is there at its height."""
        return self.has(links.height, links.key_merkle_root)

    def has(self, height: int, key: bytes) -> bool:
        """Whether a block with this key is there at `height`."""
        return self._table.get(height)[1:] == key[:_PRINT_BYTES]

    def fits(self, block: Block) -> bool:
        """Whether `block` contradicts neither the block below nor the one above."""
        below, named = self._upper.get(block.height - 1), self._lower.get(block.height + 1)
        if block.height == 0:
            return block.previous_key == ZERO_HASH and named in {None, block.links.key_merkle_root}
        return (below is None or below.key_merkle_root == block.previous_key) and (
            named is None or named == block.links.key_merkle_root
        )

    def add(self, block: Block) -> list[int]:
        """Note a block that is not there and fits; return whose links it proves."""
        height, links = block.height, block.links
        linked = []
        below, above = self._upper.pop(height - 1, None), self._lower.pop(height + 1, None)
        flags = _PRESENT
        if below is not None or not height:
            flags |= _LINKED
            linked.append(height)
        self._table.put(height, bytes([flags]) + links.key_merkle_root[:_PRINT_BYTES])
        if below is not None:
            self._changed[_name(_UPPER, height - 1)] = None
        if above is not None:
            self._changed[_name(_LOWER, height + 1)] = None
            there = self._table.get(height + 1)
            self._table.put(height + 1, bytes([there[0] | _LINKED]) + there[1:])
            linked.append(height + 1)
        self.present.add(height)
        if height + 1 not in self.present:
            self._keep_upper(links)
        if height - 1 not in self.present:
            self._keep_lower(height, block.previous_key)
        return linked

    def learn(self, links: Links) -> None:
        """Take what `links` of a block that is there know more."""
        known = self._upper.get(links.height)
        if known is not None and (
            (links.ledger_key and not known.ledger_key)
            or (links.credit_full_hash and not known.credit_full_hash)
        ):
            self._keep_upper(
                Links(
                    known.height,
                    known.network_id,
                    known.key_merkle_root,
                    known.full_hash,
                    links.ledger_key or known.ledger_key,
                    links.credit_full_hash or known.credit_full_hash,
                )
            )

    def clear(self) -> None:
        """Forget every block. Costs as much as there are."""
        for first, last in self.present:
            for height in range(first, last + 1):
                self._table.put(height, _NONE)
        self._changed |= {_name(_UPPER, height): None for height in self._upper}
        self._changed |= {_name(_LOWER, height): None for height in self._lower}
        self._upper.clear()
        self._lower.clear()
        self.present = Ranges()

    def take(self) -> dict[str, bytes | None]:
        """Return the items that changed since the last time."""
        changed = self._changed | self._table.take()
        self._changed = {}
        return changed

    def _keep_upper(self, links: Links) -> None:
        if len(self._upper) >= MAX_EDGES:
            oldest = next(iter(self._upper))
            del self._upper[oldest]
            self._changed[_name(_UPPER, oldest)] = None
        self._upper[links.height] = links
        self._changed[_name(_UPPER, links.height)] = _pack_links(links)

    def _keep_lower(self, height: int, previous_key: bytes) -> None:
        if len(self._lower) >= MAX_EDGES:
            oldest = next(iter(self._lower))
            del self._lower[oldest]
            self._changed[_name(_LOWER, oldest)] = None
        self._lower[height] = previous_key
        self._changed[_name(_LOWER, height)] = previous_key


def pack_block(block: Block) -> bytes:
    """Return `block` as it is stored; `unpack_block` gives it back."""
    return _pack_links(block.links) + block.previous_key


def unpack_block(stored: bytes) -> Block:
    """Return the block that `pack_block` stored."""
    return Block(_unpack_links(stored[: _LINKS.size]), stored[_LINKS.size :])


def _pack_links(links: Links) -> bytes:
    ledger, credit = links.ledger_key, links.credit_full_hash
    return _LINKS.pack(
        (_LEDGER if ledger else 0) | (_CREDIT if credit else 0),
        links.height,
        links.network_id,
        links.key_merkle_root,
        links.full_hash,
        ledger or ZERO_HASH,
        credit or ZERO_HASH,
    )


def _unpack_links(stored: bytes) -> Links:
    flags, height, network_id, key, full, ledger, credit = _LINKS.unpack(stored)
    return Links(
        height,
        network_id,
        key,
        full,
        ledger if flags & _LEDGER else None,
        credit if flags & _CREDIT else None,
    )


def _name(prefix: str, height: int) -> str:
    return f"{prefix}{height:08x}"
