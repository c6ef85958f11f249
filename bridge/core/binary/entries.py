"""Entries, and the entry blocks that list them by hash."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from bridge.core.binary.wire import Reader, all_exactly, exactly, number, refuse
from bridge.core.hashing import entry_hash, key_merkle_root, merkle_root, sha256
from bridge.pb.eventmessages import entryBlock_pb2 as pb
from bridge.pb.eventmessages.factomEvents_pb2 import EntityState, EntryReveal

__all__ = ["Entry", "EntryBlock", "EntryBlockHashes", "is_marker", "reveal"]

_MARKER = bytes(31)
_LAST_MINUTE = 10


@dataclass(frozen=True, slots=True)
class Entry:
    """What a user wrote into a chain."""

    chain_id: bytes
    external_ids: tuple[bytes, ...] = ()
    content: bytes = b""
    version: int = 0

    @property
    def raw(self) -> bytes:
        """The binary form."""
        return _head(self.version, self.chain_id, self.external_ids) + self.content

    def hash(self) -> bytes:
        """Return the hash by which commits and entry blocks name the entry."""
        return entry_hash(_head(self.version, self.chain_id, self.external_ids), self.content)

    @classmethod
    def parse(cls, raw: bytes) -> Entry:
        """Return the entry that `raw` is.

        Raises:
            DecodeError: it is none.
        """
        read = Reader(raw)
        version, chain_id = read.number(1), read.take()
        names = Reader(read.take(read.number(2)))
        external_ids = []
        while names.left:
            external_ids.append(names.take(names.number(2)))
        return cls(chain_id, tuple(external_ids), read.take(read.left), version)

    def message(self) -> pb.EntryBlockEntry:
        """Return the entry as the feed sends it with its content."""
        return pb.EntryBlockEntry(
            hash=self.hash(),
            externalIDs=self.external_ids,
            content=self.content,
            version=self.version,
            chainID=self.chain_id,
        )

    @classmethod
    def of_message(cls, message: pb.EntryBlockEntry) -> Entry:
        """Return the entry that `message` tells; the hash that it claims is not looked at.

        Raises:
            DecodeError: a field holds what no entry can.
        """
        entry = cls(message.chainID, tuple(message.externalIDs), message.content, message.version)
        # Refuses what does not fit its field.
        _head(entry.version, entry.chain_id, entry.external_ids)
        return entry

    @classmethod
    def hash_of_message(cls, message: pb.EntryBlockEntry) -> bytes:
        """Return the hash of the entry that `message` tells. Raises: as `of_message`."""
        head = _head(message.version, message.chainID, message.externalIDs)
        return entry_hash(head, message.content)


def _head(version: int, chain_id: bytes, external_ids: Iterable[bytes]) -> bytes:
    names = b"".join([number(len(each), 2) + each for each in external_ids])
    return b"".join((number(version, 1), exactly(chain_id), number(len(names), 2), names))


def reveal(entry: Entry, at: int) -> EntryReveal:
    """Return the event that stands for a reveal which did not arrive.

    Args:
        entry: what was revealed.
        at: seconds since 1970; see `EntryBlock.times`.
    """
    return EntryReveal(
        entityState=EntityState.COMMITTED_TO_DIRECTORY_BLOCK,
        entry=entry.message(),
        timestamp=Timestamp(seconds=at),
    )


class EntryBlockHashes(NamedTuple):
    """What an entry block is known by."""

    body_merkle_root: bytes
    key_merkle_root: bytes
    """Listed by the directory block, and the chain's next block's `previousKeyMerkleRoot`."""
    full_hash: bytes
    """The chain's next block's `previousFullHash`."""


@dataclass(frozen=True, slots=True)
class EntryBlock:
    """The entries that one chain got at one height."""

    chain_id: bytes
    previous_key_merkle_root: bytes
    previous_full_hash: bytes
    sequence: int
    """Number of the block within its chain, from 0."""
    height: int
    body: tuple[bytes, ...]
    """Hashes of entries, closed minute by minute by markers: 31 zero bytes and the minute."""

    def entry_hashes(self) -> tuple[bytes, ...]:
        """Return the hashes without the markers, in order; the same entry can stand twice."""
        return tuple([each for each in self.body if not is_marker(each)])

    def times(self, start: int) -> Iterator[tuple[bytes, int]]:
        """Yield each entry's hash and its second, as the node's `entry-block` answers.

        Args:
            start: of the directory block, in seconds since 1970.
        """
        waiting: list[bytes] = []
        for each in self.body:
            if not is_marker(each):
                waiting.append(each)
                continue
            yield from ((entry, start + 60 * each[-1]) for entry in waiting)
            waiting.clear()
        yield from ((entry, start) for entry in waiting)

    def hashes(self) -> EntryBlockHashes:
        """Return the three hashes, computed from what the block holds."""
        root = merkle_root(self.body)
        header = self._header(root)
        return EntryBlockHashes(
            root, key_merkle_root(header, root), sha256(header + b"".join(self.body))
        )

    @property
    def raw(self) -> bytes:
        """The binary form."""
        return self._header(merkle_root(self.body)) + b"".join(self.body)

    def _header(self, root: bytes) -> bytes:
        return b"".join(
            (
                exactly(self.chain_id),
                root,
                exactly(self.previous_key_merkle_root),
                exactly(self.previous_full_hash),
                number(self.sequence, 4),
                number(self.height, 4),
                number(len(self.body), 4),
            )
        )

    @classmethod
    def parse(cls, raw: bytes) -> EntryBlock:
        """Return the block that `raw` is.

        Raises:
            DecodeError: it is none, or its body is not the one that its header names.
        """
        read = Reader(raw)
        chain_id, root, key, full = read.take(), read.take(), read.take(), read.take()
        sequence, height, count = read.number(4), read.number(4), read.number(4)
        body = tuple(read.take() for _ in read.counted(count, 32))
        read.end()
        if merkle_root(body) != root:
            refuse("the entry block's list is not the one that its header names")
        return cls(chain_id, key, full, sequence, height, body)

    def message(self) -> pb.EntryBlock:
        """Return the block as the feed sends it."""
        return pb.EntryBlock(
            header=pb.EntryBlockHeader(
                bodyMerkleRoot=merkle_root(self.body),
                chainID=self.chain_id,
                previousFullHash=self.previous_full_hash,
                previousKeyMerkleRoot=self.previous_key_merkle_root,
                blockHeight=self.height,
                blockSequence=self.sequence,
                entryCount=len(self.body),
            ),
            entryHashes=self.body,
        )

    @classmethod
    def of_message(cls, message: pb.EntryBlock) -> EntryBlock:
        """Return the block that `message` tells; the root that it claims is not looked at.

        Raises:
            DecodeError: a field holds what no block can.
        """
        header = message.header
        if header.entryCount != len(message.entryHashes):
            refuse(f"{len(message.entryHashes)} entries are listed, {header.entryCount} counted")
        return cls(
            chain_id=exactly(header.chainID),
            previous_key_merkle_root=exactly(header.previousKeyMerkleRoot),
            previous_full_hash=exactly(header.previousFullHash),
            sequence=header.blockSequence,
            height=header.blockHeight,
            body=all_exactly(message.entryHashes),
        )


def is_marker(item: bytes) -> bool:
    """Say whether `item`, of the body of an entry block, closes a minute."""
    return item[:31] == _MARKER and 0 < item[31] <= _LAST_MINUTE
