"""Entry-credit blocks: the commits of a height, and what was bought to pay for them."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

from bridge.core.binary.commits import ChainCommit, EntryCommit
from bridge.core.binary.directory import CREDIT_CHAIN
from bridge.core.binary.wire import Reader, exactly, number, refuse, varint
from bridge.core.hashing import sha256
from bridge.core.native import native
from bridge.pb.eventmessages import factomEvents_pb2 as pb

__all__ = [
    "BalanceIncrease",
    "CreditBlock",
    "CreditHashes",
    "Item",
    "Minute",
    "ServerIndex",
]

_SMALLEST = 2


@dataclass(frozen=True, slots=True)
class BalanceIncrease:
    """Credits an entry-credit key for what a factoid transaction paid."""

    public_key: bytes
    transaction_id: bytes
    index: int
    """Which of the transaction's entry-credit outputs, from 0."""
    amount: int
    """Entry credits."""

    @property
    def raw(self) -> bytes:
        """The binary form."""
        head = exactly(self.public_key) + exactly(self.transaction_id)
        return head + varint(self.index) + varint(self.amount)


@dataclass(frozen=True, slots=True)
class Minute:
    """Closes a minute."""

    number: int


@dataclass(frozen=True, slots=True)
class ServerIndex:
    """Says which server took in what follows; in old blocks only."""

    number: int


_MINUTES = tuple(map(Minute, range(256)))
_SERVERS = tuple(map(ServerIndex, range(256)))

Item = ChainCommit | EntryCommit | BalanceIncrease | Minute | ServerIndex


class CreditHashes(NamedTuple):
    """What an entry-credit block is known by."""

    body_hash: bytes
    header_hash: bytes
    """Listed by the directory block, and the next one's `previousHeaderHash`."""
    full_hash: bytes
    """The next one's previous full hash, for which the feed sends the header's hash again."""


@dataclass(frozen=True, slots=True)
class CreditBlock:
    """The entry-credit block of one height."""

    previous_header_hash: bytes
    previous_full_hash: bytes
    height: int
    items: tuple[Item, ...]
    expansion: bytes = b""

    def hashes(self) -> CreditHashes:
        """Return the three hashes, computed from what the block holds."""
        return self._hashes(self._body(), len(self.items))

    @property
    def raw(self) -> bytes:
        """The binary form."""
        body = self._body()
        return self._header(sha256(body), len(body), len(self.items)) + body

    def _hashes(self, body: bytes, count: int) -> CreditHashes:
        body_hash = sha256(body)
        header = self._header(body_hash, len(body), count)
        return CreditHashes(body_hash, sha256(header), sha256(header + body))

    def _body(self) -> bytes:
        return b"".join(map(_write, self.items))

    def _header(self, body_hash: bytes, size: int, count: int) -> bytes:
        return b"".join(
            (
                CREDIT_CHAIN,
                body_hash,
                exactly(self.previous_header_hash),
                exactly(self.previous_full_hash),
                number(self.height, 4),
                varint(len(self.expansion)),
                self.expansion,
                number(count, 8),
                number(size, 8),
            )
        )

    @classmethod
    def parse(cls, raw: bytes) -> CreditBlock:
        """Return the block that `raw` is.

        Raises:
            DecodeError: it is none, or its body is not the one that its header names.
        """
        read = Reader(raw)
        read.constant(CREDIT_CHAIN, "the chain id of the entry-credit block")
        body_hash, header_hash, full = read.take(), read.take(), read.take()
        height, expansion = read.number(4), read.expansion()
        count, size = read.number(8), read.number(8)
        body = read.take(size)
        read.end()
        if sha256(body) != body_hash:
            refuse("the entry-credit block's body is not the one that its header names")
        items = Reader(body)
        found = tuple(_read(items) for _ in items.counted(count, _SMALLEST))
        items.end()
        return cls(header_hash, full, height, found, expansion)

    def message(self) -> pb.EntryCreditBlock:
        """Return the block as the feed sends it."""
        return pb.EntryCreditBlock(
            header=pb.EntryCreditBlockHeader(
                bodyHash=sha256(self._body()),
                previousHeaderHash=self.previous_header_hash,
                # The node's quirk: the header's hash once more.
                previousFullHash=self.previous_header_hash,
                blockHeight=self.height,
                objectCount=len(self.items),
            ),
            entries=map(_item_message, self.items),
        )

    @classmethod
    def of_message(cls, message: pb.EntryCreditBlock, previous_full_hash: bytes) -> CreditBlock:
        """Return the block that `message` tells, with the one hash that the feed does not send.

        Raises:
            DecodeError: a field holds what no block can.
        """
        header = message.header
        if header.objectCount != len(message.entries):
            refuse(f"{len(message.entries)} objects are listed, {header.objectCount} counted")
        return cls(
            exactly(header.previousHeaderHash),
            exactly(previous_full_hash),
            header.blockHeight,
            tuple(map(_item_of_message, message.entries)),
        )

    @classmethod
    def hashes_of_message(
        cls,
        message: pb.EntryCreditBlock,
        previous_full_hash: bytes,
        compiled: ModuleType | None = native,
    ) -> CreditHashes:
        """Return the hashes of the block that `message` tells, without making its items.

        Without `compiled` it does the same, and takes ten times as long. Raises: as `of_message`.
        """
        body = compiled.credit_body(message.SerializeToString()) if compiled else None
        count, header = len(message.entries), message.header
        if body is None or header.objectCount != count:
            return cls.of_message(message, previous_full_hash).hashes()
        block = cls(header.previousHeaderHash, previous_full_hash, header.blockHeight, ())
        return block._hashes(body, count)


def _read(read: Reader) -> Item:
    code = read.number(1)
    if code == 0:
        return _SERVERS[read.number(1)]
    if code == 1:
        return _MINUTES[read.number(1)]
    if code == 2:
        return ChainCommit.read(read)
    if code == 3:
        return EntryCommit.read(read)
    if code == 4:
        return BalanceIncrease(read.take(), read.take(), read.varint(), read.varint())
    return refuse(f"an entry-credit block has no objects of type {code}")


def _write(item: Item) -> bytes:
    match item:
        case EntryCommit():
            return b"\x03" + item.raw
        case ChainCommit():
            return b"\x02" + item.raw
        case BalanceIncrease():
            return b"\x04" + item.raw
        case Minute():
            return b"\x01" + number(item.number, 1)
        case ServerIndex():
            return b"\x00" + number(item.number, 1)


def _item_message(item: Item) -> pb.EntryCreditBlockEntry:
    match item:
        case ServerIndex():
            index = pb.ServerIndexNumber(serverIndexNumber=item.number)
            return pb.EntryCreditBlockEntry(serverIndexNumber=index)
        case Minute():
            minute = pb.MinuteNumber(minuteNumber=item.number)
            return pb.EntryCreditBlockEntry(minuteNumber=minute)
        case ChainCommit():
            return pb.EntryCreditBlockEntry(chainCommit=item.message())
        case EntryCommit():
            return pb.EntryCreditBlockEntry(entryCommit=item.message())
        case BalanceIncrease():
            increase = pb.IncreaseBalance(
                entryCreditPublicKey=item.public_key,
                transactionID=item.transaction_id,
                index=item.index,
                amount=item.amount,
            )
            return pb.EntryCreditBlockEntry(increaseBalance=increase)


def _item_of_message(message: pb.EntryCreditBlockEntry) -> Item:
    name = message.WhichOneof("entryCreditBlockEntry")
    member: Any = getattr(message, name) if name else None
    match name:
        case "serverIndexNumber":
            return ServerIndex(member.serverIndexNumber)
        case "minuteNumber":
            return Minute(member.minuteNumber)
        case "chainCommit":
            return ChainCommit.of_message(member)
        case "entryCommit":
            return EntryCommit.of_message(member)
        case "increaseBalance":
            return BalanceIncrease(
                member.entryCreditPublicKey, member.transactionID, member.index, member.amount
            )
    return refuse("an object of the entry-credit block is empty, or of a newer kind")
