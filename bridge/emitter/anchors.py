"""Anchors of a simulated chain, in made-up transactions of Bitcoin and Ethereum. Pure.

As on the network, every block is anchored in Bitcoin by itself, and in Ethereum a window of blocks
by its last one: the record of that block changes once more then, and names the entry that proves
it. A node answers with the path from a block's root to the window's (factomd v6.5.2, `wsapi`,
`HandleV2Anchors`). Unlike there, no chain holds the entry that is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from bridge.core.hashing import sha256
from bridge.emitter.block import Block
from bridge.emitter.inputs import AnchorInfo

__all__ = ["WINDOW_BLOCKS", "Step", "Window", "closes_window", "in_bitcoin", "in_ethereum", "path"]

WINDOW_BLOCKS = 1_000
_ETHEREUM_EVERY = 10


class Window(NamedTuple):
    """Blocks that one Ethereum transaction anchors, in order of height."""

    first: int
    roots: tuple[bytes, ...]
    """Their key Merkle roots."""
    record: AnchorInfo
    """That of the last one."""


class Step(NamedTuple):
    """Two neighbours in a Merkle tree, and the hash above them."""

    left: bytes
    right: bytes
    top: bytes


def in_bitcoin(block: Block, at: int) -> AnchorInfo:
    """Return the record of `block` once it is in Bitcoin; both its hashes are the key root."""
    root = block.directory.hashes().key_merkle_root
    transaction = sha256(b"transaction" + root)
    return AnchorInfo(
        directory_block_hash=root,
        directory_block_merkle_root=root,
        block_height=block.height,
        milliseconds=at,
        btc_tx_hash=transaction,
        btc_tx_offset=transaction[0],
        btc_block_height=500_000 + block.height,
        btc_block_hash=sha256(b"block" + root),
        btc_confirmed=True,
    )


def closes_window(height: int) -> bool:
    """Tell whether the block of `height` is the last of a window: every tenth is."""
    return height % _ETHEREUM_EVERY == 0


def in_ethereum(record: AnchorInfo) -> AnchorInfo:
    """Return `record` once its block, and the window before it, is in Ethereum too."""
    proof = sha256(b"record" + record.directory_block_merkle_root)
    return replace(record, ethereum_anchor_record_entry_hash=proof, ethereum_confirmed=True)


def path(leaves: Sequence[bytes], at: int) -> Iterator[Step]:
    """Yield the steps from `leaves[at]` to the root of the tree over `leaves`."""
    level = list(leaves)
    while len(level) > 1:
        if len(level) % 2:
            level.append(level[-1])
        pairs = list(zip(level[::2], level[1::2], strict=True))
        level = [sha256(left + right) for left, right in pairs]
        at //= 2
        yield Step(*pairs[at], level[at])
