"""The hashes by which entries, commits and blocks of a Factom network are known.

Sources: the network's public document "Factom Data Structures" and `docs/feed.md`, section 6; every
one is reproduced from recorded instances by the tests. What is hashed is the binary form, which the
modules of `bridge.core.binary` write.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256 as _sha256, sha512 as _sha512
from types import ModuleType

from bridge.core.native import native

__all__ = [
    "HASH_BYTES",
    "ZERO_HASH",
    "back_reference_hash",
    "chain_id",
    "chain_id_hash",
    "entry_hash",
    "key_merkle_root",
    "ledger_key_merkle_root",
    "merkle_root",
    "sha256",
    "weld",
]

HASH_BYTES = 32
ZERO_HASH = bytes(HASH_BYTES)
"""Stands where the first block of a chain would name its predecessor."""


def sha256(data: bytes) -> bytes:
    """Return the SHA-256 digest."""
    return _sha256(data).digest()


def entry_hash(head: bytes, content: bytes = b"") -> bytes:
    """Return the hash of an entry, whose binary form may come in two parts.

    It is SHA-256(SHA-512(raw) + raw).
    """
    inner = _sha512(head)
    inner.update(content)
    outer = _sha256(inner.digest() + head)
    outer.update(content)
    return outer.digest()


def chain_id(external_ids: Iterable[bytes]) -> bytes:
    """Return the id of the chain that an entry with these external ids opens."""
    return sha256(b"".join(map(sha256, external_ids)))


def chain_id_hash(chain: bytes) -> bytes:
    """Return the `chainIDHash` of a chain commit: SHA-256 twice over the chain's id."""
    return sha256(sha256(chain))


def weld(entry: bytes, chain: bytes) -> bytes:
    """Return the `weld` of a chain commit, which ties the first entry's hash to the chain's id."""
    return sha256(sha256(entry + chain))


def merkle_root(leaves: Sequence[bytes], compiled: ModuleType | None = native) -> bytes:
    """Return the root over `leaves`: pairwise SHA-256, an odd last one paired with itself.

    One leaf is its own root; of none it is the zero hash, which no block has.
    """
    if compiled is not None:
        found: bytes | None = compiled.merkle_root(leaves)
        if found is not None:
            return found
    level = list(leaves) or [ZERO_HASH]
    while len(level) > 1:
        if len(level) % 2:
            level.append(level[-1])
        level = [_sha256(level[at] + level[at + 1]).digest() for at in range(0, len(level), 2)]
    return level[0]


def key_merkle_root(header: bytes, body_root: bytes) -> bytes:
    """Return the identity of a directory, entry or factoid block."""
    return sha256(sha256(header) + body_root)


def ledger_key_merkle_root(header: bytes, ledger_root: bytes) -> bytes:
    """Return a factoid block's ledger key: the root, over unsigned transactions, comes first."""
    return sha256(ledger_root + sha256(header))


def back_reference_hash(raw: bytes) -> bytes:
    """Return the hash by which the next admin block names this one: half a SHA-512."""
    return _sha512(raw).digest()[:HASH_BYTES]
