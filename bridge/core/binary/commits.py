"""Commits, with which users pay for entries and chains before they reveal them."""

from __future__ import annotations

from typing import NamedTuple

from bridge.core.binary.wire import Reader, exactly, milliseconds, number, timestamp
from bridge.pb.eventmessages import factomEvents_pb2 as pb

__all__ = ["ChainCommit", "EntryCommit"]

_IN_A_BLOCK = pb.EntityState.COMMITTED_TO_DIRECTORY_BLOCK
_SIGNATURE = 64


class EntryCommit(NamedTuple):
    """Pays for an entry: 136 bytes."""

    milliseconds: int
    """The payer's time, since 1970."""
    entry_hash: bytes
    credits: int
    public_key: bytes
    signature: bytes
    version: int = 0

    @property
    def ledger(self) -> bytes:
        """The part that is signed, and whose SHA-256 is the commit's transaction id."""
        return b"".join(
            (
                number(self.version, 1),
                number(self.milliseconds, 6),
                exactly(self.entry_hash),
                number(self.credits, 1),
            )
        )

    @property
    def raw(self) -> bytes:
        """The binary form."""
        return self.ledger + exactly(self.public_key) + exactly(self.signature, _SIGNATURE)

    @classmethod
    def parse(cls, raw: bytes) -> EntryCommit:
        """Return the commit that `raw` is, or raise a `DecodeError`."""
        read = Reader(raw)
        commit = cls.read(read)
        read.end()
        return commit

    @classmethod
    def read(cls, read: Reader) -> EntryCommit:
        """Take a commit from the front."""
        version, at, entry = read.number(1), read.number(6), read.take()
        return cls(at, entry, read.number(1), read.take(), read.take(_SIGNATURE), version)

    def message(self, state: pb.EntityState = _IN_A_BLOCK) -> pb.EntryCommit:
        """Return the commit as the feed sends it; by default as it stands in a block."""
        return pb.EntryCommit(
            entityState=state,
            entryHash=self.entry_hash,
            timestamp=timestamp(self.milliseconds),
            credits=self.credits,
            entryCreditPublicKey=self.public_key,
            signature=self.signature,
            version=self.version,
        )

    @classmethod
    def of_message(cls, message: pb.EntryCommit) -> EntryCommit:
        """Return the commit that `message` tells, whatever its state."""
        return cls(
            milliseconds(message.timestamp),
            message.entryHash,
            message.credits,
            message.entryCreditPublicKey,
            message.signature,
            message.version,
        )


class ChainCommit(NamedTuple):
    """Pays for a chain and its first entry: 200 bytes."""

    milliseconds: int
    """The payer's time, since 1970."""
    chain_id_hash: bytes
    weld: bytes
    entry_hash: bytes
    credits: int
    public_key: bytes
    signature: bytes
    version: int = 0

    @property
    def ledger(self) -> bytes:
        """The part that is signed, and whose SHA-256 is the commit's transaction id."""
        return b"".join(
            (
                number(self.version, 1),
                number(self.milliseconds, 6),
                exactly(self.chain_id_hash),
                exactly(self.weld),
                exactly(self.entry_hash),
                number(self.credits, 1),
            )
        )

    @property
    def raw(self) -> bytes:
        """The binary form."""
        return self.ledger + exactly(self.public_key) + exactly(self.signature, _SIGNATURE)

    @classmethod
    def parse(cls, raw: bytes) -> ChainCommit:
        """Return the commit that `raw` is, or raise a `DecodeError`."""
        read = Reader(raw)
        commit = cls.read(read)
        read.end()
        return commit

    @classmethod
    def read(cls, read: Reader) -> ChainCommit:
        """Take a commit from the front."""
        version, at, chain, weld = read.number(1), read.number(6), read.take(), read.take()
        entry, price = read.take(), read.number(1)
        return cls(at, chain, weld, entry, price, read.take(), read.take(_SIGNATURE), version)

    def message(self, state: pb.EntityState = _IN_A_BLOCK) -> pb.ChainCommit:
        """Return the commit as the feed sends it; by default as it stands in a block."""
        return pb.ChainCommit(
            entityState=state,
            chainIDHash=self.chain_id_hash,
            entryHash=self.entry_hash,
            weld=self.weld,
            timestamp=timestamp(self.milliseconds),
            credits=self.credits,
            entryCreditPublicKey=self.public_key,
            signature=self.signature,
            version=self.version,
        )

    @classmethod
    def of_message(cls, message: pb.ChainCommit) -> ChainCommit:
        """Return the commit that `message` tells, whatever its state."""
        return cls(
            milliseconds(message.timestamp),
            message.chainIDHash,
            message.weld,
            message.entryHash,
            message.credits,
            message.entryCreditPublicKey,
            message.signature,
            message.version,
        )
