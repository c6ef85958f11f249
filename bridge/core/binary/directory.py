"""Directory blocks: header, then chain id and key Merkle root of every block of the height."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from bridge.core.binary.wire import Reader, all_exactly, exactly, number, refuse
from bridge.core.hashing import key_merkle_root, merkle_root, sha256
from bridge.pb.eventmessages import directoryBlock_pb2 as pb

__all__ = [
    "ADMIN_CHAIN",
    "CREDIT_CHAIN",
    "DIRECTORY_CHAIN",
    "FACTOID_CHAIN",
    "DirectoryBlock",
    "DirectoryHashes",
    "Listed",
    "lists_entry_blocks",
]

ADMIN_CHAIN = bytes(31) + b"\x0a"
CREDIT_CHAIN = bytes(31) + b"\x0c"
DIRECTORY_CHAIN = bytes(31) + b"\x0d"
FACTOID_CHAIN = bytes(31) + b"\x0f"

_SYSTEM_CHAINS = (ADMIN_CHAIN, CREDIT_CHAIN, FACTOID_CHAIN)
_PAIR = 64


class Listed(NamedTuple):
    """A block of the height, as the directory lists it."""

    chain_id: bytes
    key: bytes
    """Key Merkle root; of an admin block the lookup hash, of an entry-credit block the header's."""


class DirectoryHashes(NamedTuple):
    """What a directory block is known by."""

    body_merkle_root: bytes
    key_merkle_root: bytes
    """The next block's `previousKeyMerkleRoot`."""
    full_hash: bytes
    """The next block's `previousFullHash`; the feed does not send it."""


@dataclass(frozen=True, slots=True)
class DirectoryBlock:
    """The list of one height's blocks."""

    network_id: int
    previous_key_merkle_root: bytes
    previous_full_hash: bytes
    minutes: int
    """Start of the block, in whole minutes since 1970."""
    height: int
    listed: tuple[Listed, ...]
    """The admin, entry-credit and factoid block, then the entry blocks."""
    version: int = 0

    @property
    def seconds(self) -> int:
        """Start of the block, in seconds since 1970."""
        return self.minutes * 60

    @property
    def entry_blocks(self) -> tuple[Listed, ...]:
        """The blocks of user chains, in their order."""
        return tuple(each for each in self.listed if each.chain_id not in _SYSTEM_CHAINS)

    def key_of(self, chain_id: bytes) -> bytes | None:
        """Return the key under which that chain's block is listed."""
        return next((each.key for each in self.listed if each.chain_id == chain_id), None)

    def body_merkle_root(self) -> bytes:
        """Return the root over the flat list of chain ids and keys."""
        return merkle_root(list(chain.from_iterable(self.listed)))

    def hashes(self) -> DirectoryHashes:
        """Return the three hashes, computed from what the block holds."""
        root = self.body_merkle_root()
        header = self._header(root)
        return DirectoryHashes(root, key_merkle_root(header, root), sha256(header + self._body()))

    @property
    def raw(self) -> bytes:
        """The binary form."""
        return self._header(self.body_merkle_root()) + self._body()

    def _header(self, body_root: bytes) -> bytes:
        return b"".join(
            (
                number(self.version, 1),
                number(self.network_id, 4),
                body_root,
                exactly(self.previous_key_merkle_root),
                exactly(self.previous_full_hash),
                number(self.minutes, 4),
                number(self.height, 4),
                number(len(self.listed), 4),
            )
        )

    def _body(self) -> bytes:
        return b"".join(chain.from_iterable(self.listed))

    @classmethod
    def parse(cls, raw: bytes) -> DirectoryBlock:
        """Return the block that `raw` is.

        Raises:
            DecodeError: it is none, or its body is not the one that its header names.
        """
        read = Reader(raw)
        version, network_id, root = read.number(1), read.number(4), read.take()
        key, full = read.take(), read.take()
        minutes, height, count = read.number(4), read.number(4), read.number(4)
        listed = tuple(Listed(read.take(), read.take()) for _ in read.counted(count, _PAIR))
        read.end()
        block = cls(network_id, key, full, minutes, height, listed, version)
        if block.body_merkle_root() != root:
            refuse("the directory's list is not the one that its header names")
        return block

    def message(self) -> pb.DirectoryBlock:
        """Return the block as the feed sends it."""
        hashes = self.hashes()
        return pb.DirectoryBlock(
            header=pb.DirectoryBlockHeader(
                bodyMerkleRoot=hashes.body_merkle_root,
                previousKeyMerkleRoot=self.previous_key_merkle_root,
                previousFullHash=self.previous_full_hash,
                timestamp=Timestamp(seconds=self.seconds),
                blockHeight=self.height,
                blockCount=len(self.listed),
                version=self.version,
                networkID=self.network_id,
            ),
            entries=[
                pb.DirectoryBlockEntry(chainID=each.chain_id, keyMerkleRoot=each.key)
                for each in self.listed
            ],
            hash=hashes.key_merkle_root,
            chainID=DIRECTORY_CHAIN,
            keyMerkleRoot=hashes.key_merkle_root,
        )

    @classmethod
    def of_message(cls, message: pb.DirectoryBlock) -> DirectoryBlock:
        """Return the block that `message` tells; the hashes that it claims are not looked at.

        Raises:
            DecodeError: a field holds what no block can.
        """
        header = message.header
        at = header.timestamp
        if at.nanos or at.seconds % 60:
            refuse(f"a directory block starts with a minute, not at {at.seconds} s {at.nanos} ns")
        if header.blockCount != len(message.entries):
            refuse(f"{len(message.entries)} blocks are listed, {header.blockCount} are counted")
        if message.chainID != DIRECTORY_CHAIN:
            refuse("the directory's chain id is another")
        number(at.seconds // 60, 4)
        number(header.version, 1)
        listed = tuple([Listed(each.chainID, each.keyMerkleRoot) for each in message.entries])
        all_exactly(chain.from_iterable(listed))
        return cls(
            network_id=header.networkID,
            previous_key_merkle_root=exactly(header.previousKeyMerkleRoot),
            previous_full_hash=exactly(header.previousFullHash),
            minutes=at.seconds // 60,
            height=header.blockHeight,
            listed=listed,
            version=header.version,
        )


def lists_entry_blocks(message: pb.DirectoryBlock) -> bool:
    """Say whether `message` lists blocks of user chains."""
    return any(each.chainID not in _SYSTEM_CHAINS for each in message.entries)
