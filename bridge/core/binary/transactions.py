"""Factoid transactions: amounts that move between addresses, or become entry credits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from bridge.core.binary.wire import (
    Reader,
    exactly,
    number,
    quirky_milliseconds,
    quirky_timestamp,
    refuse,
    varint,
)
from bridge.core.hashing import sha256
from bridge.pb.eventmessages import factoidBlock_pb2 as pb, sharedTypes_pb2 as shared

__all__ = ["Output", "Proof", "Transaction"]

_VERSION = b"\x02"
_RCD_1 = b"\x01"
_SIGNATURE = 64
_SMALLEST_OUTPUT = 33
_SMALLEST_PROOF = 97


class Output(NamedTuple):
    """An amount and whose it is; inputs have the same form."""

    amount: int
    """Factoshis."""
    address: bytes


class Proof(NamedTuple):
    """What spends an input: the redeem condition (type 1, one key) and the signature."""

    public_key: bytes
    signature: bytes


@dataclass(frozen=True)
class Transaction:
    """Moves factoids, or turns them into entry credits."""

    milliseconds: int
    """Time since 1970."""
    inputs: tuple[Output, ...] = ()
    outputs: tuple[Output, ...] = ()
    credit_outputs: tuple[Output, ...] = ()
    proofs: tuple[Proof, ...] = ()
    """One for each input; a coinbase transaction has neither."""

    @cached_property
    def ledger(self) -> bytes:
        """The part that is signed, and whose SHA-256 is the transaction's id."""
        sides = (self.inputs, self.outputs, self.credit_outputs)
        return b"".join(
            (
                _VERSION,
                number(self.milliseconds, 6),
                *(number(len(side), 1) for side in sides),
                *(varint(amount) + exactly(to) for side in sides for amount, to in side),
            )
        )

    @cached_property
    def raw(self) -> bytes:
        """The binary form."""
        if len(self.proofs) != len(self.inputs):
            refuse(f"{len(self.inputs)} inputs have {len(self.proofs)} signatures")
        proofs = (
            _RCD_1 + exactly(key) + exactly(signature, _SIGNATURE) for key, signature in self.proofs
        )
        return self.ledger + b"".join(proofs)

    @classmethod
    def parse(cls, raw: bytes) -> Transaction:
        """Return the transaction that `raw` is, or raise a `DecodeError`."""
        read = Reader(raw)
        transaction = cls.read(read)
        read.end()
        return transaction

    @classmethod
    def read(cls, read: Reader) -> Transaction:
        """Take a transaction from the front."""
        read.constant(_VERSION, "the version of the transaction")
        at = read.number(6)
        counts = (read.number(1), read.number(1), read.number(1))
        inputs, outputs, bought = (
            tuple(Output(read.varint(), read.take()) for _ in read.counted(count, _SMALLEST_OUTPUT))
            for count in counts
        )
        proofs = []
        for _ in read.counted(len(inputs), _SMALLEST_PROOF):
            read.constant(_RCD_1, "the type of the redeem condition")
            proofs.append(Proof(read.take(), read.take(_SIGNATURE)))
        return cls(at, inputs, outputs, bought, tuple(proofs))

    def message(self, minute: int) -> pb.Transaction:
        """Return the transaction as the feed sends it."""
        return pb.Transaction(
            transactionID=sha256(self.ledger),
            timestamp=quirky_timestamp(self.milliseconds),
            factoidInputs=map(_address, self.inputs),
            factoidOutputs=map(_address, self.outputs),
            entryCreditOutputs=map(_address, self.credit_outputs),
            redeemConditionDataStructures=[
                pb.RCD(rcd1=pb.RCD1(publicKey=proof.public_key)) for proof in self.proofs
            ],
            signatureBlocks=[
                pb.FactoidSignatureBlock(signature=[proof.signature]) for proof in self.proofs
            ],
            minuteNumber=minute,
        )

    @classmethod
    def of_message(cls, message: pb.Transaction) -> Transaction:
        """Return the transaction that `message` tells; the id that it claims is not looked at."""
        conditions, signatures = message.redeemConditionDataStructures, message.signatureBlocks
        if not len(conditions) == len(signatures) == len(message.factoidInputs):
            refuse("the transaction's inputs, redeem conditions and signatures are not as many")
        if any(len(block.signature) != 1 for block in signatures):
            refuse("a redeem condition of type 1 takes one signature")
        return cls(
            quirky_milliseconds(message.timestamp),
            tuple(Output(each.amount, each.address) for each in message.factoidInputs),
            tuple(Output(each.amount, each.address) for each in message.factoidOutputs),
            tuple(Output(each.amount, each.address) for each in message.entryCreditOutputs),
            tuple(
                Proof(condition.rcd1.publicKey, block.signature[0])
                for condition, block in zip(conditions, signatures, strict=True)
            ),
        )


def _address(output: Output) -> shared.TransactionAddress:
    return shared.TransactionAddress(amount=output.amount, address=output.address)
