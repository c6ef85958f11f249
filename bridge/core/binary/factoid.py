"""Factoid blocks: the transactions of one height, minute by minute.

The body is transactions, of which each begins with its version 2, and ten markers, single zero
bytes, of which each closes a minute. Both are leaves of the block's two Merkle trees: one over whole
transactions, and one, the ledger's, over transactions without their redeem conditions and
signatures.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from bridge.core.binary.directory import FACTOID_CHAIN
from bridge.core.binary.transactions import Transaction
from bridge.core.binary.wire import Reader, exactly, number, refuse, varint
from bridge.core.hashing import key_merkle_root, ledger_key_merkle_root, merkle_root, sha256
from bridge.pb.eventmessages import factoidBlock_pb2 as pb

__all__ = ["MINUTES", "FactoidBlock", "FactoidHashes"]

MINUTES = 10
"""Minutes, and so markers, of a block."""

T = TypeVar("T")

_MARKER = b"\x00"
_MARKER_HASH = sha256(_MARKER)


class FactoidHashes(NamedTuple):
    """What a factoid block is known by."""

    body_merkle_root: bytes
    key_merkle_root: bytes
    """Listed by the directory block, and the next one's `previousKeyMerkleRoot`."""
    ledger_key_merkle_root: bytes
    """The next one's previous ledger key. Quirk: the feed sends it as this block's *previous*."""


@dataclass(frozen=True, slots=True)
class FactoidBlock:
    """The transactions of one height."""

    previous_key_merkle_root: bytes
    previous_ledger_key_merkle_root: bytes
    exchange_rate: int
    """Factoshis for one entry credit."""
    height: int
    minutes: tuple[tuple[Transaction, ...], ...]
    """Transactions of each of the ten minutes."""
    expansion: bytes = b""

    def body_merkle_root(self) -> bytes:
        """Return the root over whole transactions and markers."""
        return merkle_root(list(map(sha256, self._parts())))

    def hashes(self) -> FactoidHashes:
        """Return the three hashes, computed from what the block holds."""
        parts = self._parts()
        root = merkle_root(list(map(sha256, parts)))
        header = self._header(root, parts)
        ledger = _leaves([[sha256(each.ledger) for each in minute] for minute in self.minutes])
        return FactoidHashes(
            root,
            key_merkle_root(header, root),
            ledger_key_merkle_root(header, merkle_root(ledger)),
        )

    @property
    def raw(self) -> bytes:
        """The binary form."""
        parts = self._parts()
        return b"".join((self._header(self.body_merkle_root(), parts), *parts))

    def _parts(self) -> list[bytes]:
        if len(self.minutes) != MINUTES:
            refuse(f"a factoid block has {MINUTES} minutes, not {len(self.minutes)}")
        return [
            part
            for minute in self.minutes
            for part in (*(transaction.raw for transaction in minute), _MARKER)
        ]

    def _header(self, root: bytes, parts: list[bytes]) -> bytes:
        return b"".join(
            (
                FACTOID_CHAIN,
                root,
                exactly(self.previous_key_merkle_root),
                exactly(self.previous_ledger_key_merkle_root),
                number(self.exchange_rate, 8),
                number(self.height, 4),
                varint(len(self.expansion)),
                self.expansion,
                number(sum(map(len, self.minutes)), 4),
                number(sum(map(len, parts)), 4),
            )
        )

    @classmethod
    def parse(cls, raw: bytes) -> FactoidBlock:
        """Return the block that `raw` is.

        Raises:
            DecodeError: it is none, or its body is not the one that its header names.
        """
        read = Reader(raw)
        read.constant(FACTOID_CHAIN, "the chain id of the factoid block")
        root, key, ledger = read.take(), read.take(), read.take()
        rate, height, expansion = read.number(8), read.number(4), read.expansion()
        count, size = read.number(4), read.number(4)
        body = Reader(read.take(size))
        read.end()
        minutes: list[list[Transaction]] = [[]]
        for _ in body.counted(count + MINUTES, 1):
            if body.peek():
                minutes[-1].append(Transaction.read(body))
            else:
                body.take(1)
                minutes.append([])
        body.end()
        if len(minutes) != MINUTES + 1 or minutes.pop():
            refuse(f"the factoid block does not hold {count} transactions in {MINUTES} minutes")
        block = cls(key, ledger, rate, height, tuple(map(tuple, minutes)), expansion)
        if block.body_merkle_root() != root:
            refuse("the factoid block's body is not the one that its header names")
        return block

    def message(self) -> pb.FactoidBlock:
        """Return the block as the feed sends it."""
        hashes = self.hashes()
        return pb.FactoidBlock(
            bodyMerkleRoot=hashes.body_merkle_root,
            previousKeyMerkleRoot=self.previous_key_merkle_root,
            # The node's quirk: its own, not the previous one's.
            previousLedgerKeyMerkleRoot=hashes.ledger_key_merkle_root,
            keyMerkleRoot=hashes.key_merkle_root,
            exchangeRate=self.exchange_rate,
            blockHeight=self.height,
            transactionCount=sum(map(len, self.minutes)),
            transactions=self._transaction_messages(),
        )

    def _transaction_messages(self) -> list[pb.Transaction]:
        pairs = [
            (minute, transaction)
            for minute, transactions in enumerate(self.minutes, 1)
            for transaction in transactions
        ]
        # The node's quirk (v6.5.2, `mapTransactions`): each transaction but the first is told with
        # the minute of the one before it, and none has one where the first minute is empty.
        told = [1, *(minute for minute, _ in pairs)]
        if not self.minutes[0]:
            told = [0] * len(pairs)
        return [
            transaction.message(minute)
            for minute, (_, transaction) in zip(told, pairs, strict=False)
        ]

    @classmethod
    def of_message(cls, message: pb.FactoidBlock, previous_ledger_key: bytes) -> FactoidBlock:
        """Return the block that `message` tells, with the one hash that the feed does not send.

        The minute of the last transaction is not sent either: it is the one with which the body
        has the root that the message claims. If there is none, the body's root is another.

        Raises:
            DecodeError: a field holds what no block can.
        """
        if message.transactionCount != len(message.transactions):
            refuse("the factoid block does not hold as many transactions as it counts")
        transactions = [Transaction.of_message(each) for each in message.transactions]
        minutes = _minutes_of_message(message)
        claimed = (
            exactly(message.previousKeyMerkleRoot),
            exactly(previous_ledger_key),
            message.exchangeRate,
            message.blockHeight,
        )
        if minutes:
            leaves = _leaves(_grouped([sha256(each.raw) for each in transactions], minutes))
            while minutes[-1] < MINUTES and merkle_root(leaves) != message.bodyMerkleRoot:
                # The last transaction and the marker behind it change places.
                at = len(transactions) + minutes[-1] - 2
                leaves[at : at + 2] = reversed(leaves[at : at + 2])
                minutes[-1] += 1
        return cls(*claimed, tuple(map(tuple, _grouped(transactions, minutes))))


def _minutes_of_message(message: pb.FactoidBlock) -> list[int]:
    """Return the minute of each transaction; of the last one the first that it can be."""
    told = [each.minuteNumber for each in message.transactions]
    if told and (told[0] != 1 or sorted(told) != told or told[-1] > MINUTES):
        refuse("the minutes of the factoid block's transactions are not in order")
    return [*told[1:], *told[-1:]]


def _grouped(items: Iterable[T], minutes: Iterable[int]) -> list[list[T]]:
    groups: list[list[T]] = [[] for _ in range(MINUTES)]
    for minute, item in zip(minutes, items, strict=True):
        groups[minute - 1].append(item)
    return groups


def _leaves(hashes: Iterable[Iterable[bytes]]) -> list[bytes]:
    """Return the leaves of a tree: hashes of transactions, with a marker behind each minute."""
    return [each for minute in hashes for each in (*minute, _MARKER_HASH)]
