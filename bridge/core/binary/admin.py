"""Admin blocks: how the authority set changes, and its signatures.

An entry is a type number and the values of that type, in the order of its layout. The layouts are
one table, which is also how the values map to the fields of the feed's messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from bridge.core.binary.directory import ADMIN_CHAIN
from bridge.core.binary.transactions import Output
from bridge.core.binary.wire import Reader, exactly, number, refuse, varint
from bridge.core.hashing import back_reference_hash, sha256
from bridge.pb.eventmessages import adminBlock_pb2 as pb, sharedTypes_pb2 as shared

__all__ = ["ADD_FEDERATED_SERVER", "AdminBlock", "AdminEntry", "AdminHashes"]

ADD_FEDERATED_SERVER = 5
"""The type whose message lacks a value: the node leaves the height out."""

_NEWER = 0x0F
"""From here on types are of newer nodes: a size, then that many bytes."""

Value = int | bytes | tuple[Output, ...]


class _Field(NamedTuple):
    """A value: what it is called in the message (dots lead into it), and its binary form."""

    name: str
    form: str
    """`bytes`, `number`, `varint`, `outputs` (to the end) or `rest`."""
    size: int = 0


class _Layout(NamedTuple):
    member: str
    fields: tuple[_Field, ...]
    is_sized: bool = False
    """Whether a varint before the values says how many bytes they take."""


def _bytes(name: str, size: int = 32) -> _Field:
    return _Field(name, "bytes", size)


def _number(name: str, size: int) -> _Field:
    return _Field(name, "number", size)


_IDENTITY = _bytes("identityChainID")
_HEIGHT = _number("blockHeight", 4)
_MATRYOSHKA = (_IDENTITY, _bytes("matryoshkaHash"))
_LAYOUTS: Mapping[int, _Layout] = {
    0x00: _Layout("endOfMinuteEntry", (_number("minuteNumber", 1),)),
    0x01: _Layout(
        "directoryBlockSignatureEntry",
        (
            _bytes("identityAdminChainID"),
            _bytes("previousDirectoryBlockSignature.publicKey"),
            _bytes("previousDirectoryBlockSignature.signature", 64),
        ),
    ),
    0x02: _Layout("revealMatryoshkaHash", _MATRYOSHKA),
    0x03: _Layout("addReplaceMatryoshkaHash", _MATRYOSHKA),
    0x04: _Layout("increaseServerCount", (_number("amount", 1),)),
    ADD_FEDERATED_SERVER: _Layout("addFederatedServer", (_IDENTITY, _HEIGHT)),
    0x06: _Layout("addAuditServer", (_IDENTITY, _HEIGHT)),
    0x07: _Layout("removeFederatedServer", (_IDENTITY, _HEIGHT)),
    0x08: _Layout(
        "addFederatedServerSigningKey",
        (_IDENTITY, _number("keyPriority", 1), _bytes("publicKey"), _HEIGHT),
    ),
    0x09: _Layout(
        "addFederatedServerBitcoinAnchorKey",
        (
            _IDENTITY,
            _number("keyPriority", 1),
            _number("keyType", 1),
            _bytes("ecdsaPublicKey", 20),
        ),
    ),
    0x0B: _Layout("coinbaseDescriptor", (_Field("factoidOutputs", "outputs"),), is_sized=True),
    0x0C: _Layout(
        "cancelCoinbaseDescriptor",
        (_Field("descriptorHeight", "varint"), _Field("descriptorIndex", "varint")),
        is_sized=True,
    ),
    0x0D: _Layout("addFactoidAddress", (_IDENTITY, _bytes("address")), is_sized=True),
    0x0E: _Layout("addEfficiency", (_IDENTITY, _number("efficiency", 2)), is_sized=True),
}
_FORWARD = _Layout("forwardCompatibleEntry", (_Field("data", "rest"),), is_sized=True)
_TYPES = {layout.member: kind for kind, layout in _LAYOUTS.items()}


def _layout(kind: int) -> _Layout:
    layout = _LAYOUTS.get(kind) or (_FORWARD if _NEWER <= kind <= 0xFF else None)
    if layout is None:
        # 0x0A, the server fault, has a message but was never written into blocks.
        refuse(f"admin blocks have no entries of type {kind}")
    return layout


@dataclass(frozen=True, slots=True)
class AdminEntry:
    """An administrative entry: its type, and its values in the order of the layout."""

    kind: int
    values: tuple[Value, ...]

    @property
    def raw(self) -> bytes:
        """The binary form."""
        layout = _layout(self.kind)
        body = b"".join(map(_write, layout.fields, self.values))
        size = varint(len(body)) if layout.is_sized else b""
        return number(self.kind, 1) + size + body

    @classmethod
    def read(cls, read: Reader) -> AdminEntry:
        """Take an entry from the front."""
        kind = read.number(1)
        layout = _layout(kind)
        body = Reader(read.take(read.varint())) if layout.is_sized else read
        values = tuple(_read(field, body) for field in layout.fields)
        if layout.is_sized:
            body.end()
        return cls(kind, values)

    def message(self) -> pb.AdminBlockEntry:
        """Return the entry as the feed sends it."""
        layout = _layout(self.kind)
        message = pb.AdminBlockEntry(adminIdType=self.kind)
        member = getattr(message, layout.member)
        member.SetInParent()
        for field, value in zip(layout.fields, self.values, strict=True):
            if self.kind == ADD_FEDERATED_SERVER and field is _HEIGHT:
                continue
            *path, name = field.name.split(".")
            target = member
            for step in path:
                target = getattr(target, step)
            if field.form == "outputs":
                assert isinstance(value, tuple)
                target.factoidOutputs.extend(
                    shared.TransactionAddress(amount=amount, address=to) for amount, to in value
                )
            else:
                setattr(target, name, value)
        if layout is _FORWARD:
            member.size = len(member.data)
        return message

    @classmethod
    def of_message(cls, message: pb.AdminBlockEntry) -> AdminEntry:
        """Return the entry that `message` tells, or raise a `DecodeError`.

        Of `ADD_FEDERATED_SERVER` the height is 0, whatever it was: the feed does not send it.
        """
        name = message.WhichOneof("adminBlockEntry") or ""
        kind = message.adminIdType
        layout = _FORWARD if name == _FORWARD.member else _layout(_TYPES.get(name, -1))
        if layout is not _layout(kind):
            refuse(f"an admin entry of type {kind} is no {name}")
        values = []
        for field in layout.fields:
            value: Any = getattr(message, name)
            for step in field.name.split("."):
                value = getattr(value, step)
            if field.form == "outputs":
                value = tuple(Output(each.amount, each.address) for each in value)
            values.append(value)
        return cls(kind, tuple(values))


def _read(field: _Field, read: Reader) -> Value:
    match field.form:
        case "bytes":
            return read.take(field.size)
        case "number":
            return read.number(field.size)
        case "varint":
            value = read.varint()
            number(value, 4)  # the field of the message
            return value
        case "outputs":
            outputs = []
            while read.left:
                outputs.append(Output(read.varint(), read.take()))
            return tuple(outputs)
        case _:
            return read.take(read.left)


def _write(field: _Field, value: Value) -> bytes:
    if isinstance(value, bytes):
        return exactly(value, field.size or len(value))
    if isinstance(value, int):
        return number(value, field.size) if field.form == "number" else varint(value)
    return b"".join(varint(amount) + exactly(address) for amount, address in value)


class AdminHashes(NamedTuple):
    """What an admin block is known by."""

    lookup_hash: bytes
    """Listed by the directory block."""
    back_reference_hash: bytes
    """The next one's `previousBackRefHash`; the feed calls it `keyMerkleRoot`."""


@dataclass(frozen=True, slots=True)
class AdminBlock:
    """The administrative entries of one height."""

    previous_back_reference_hash: bytes
    height: int
    entries: tuple[AdminEntry, ...]
    expansion: bytes = b""

    def hashes(self) -> AdminHashes:
        """Return the two hashes, computed from what the block holds."""
        raw = self.raw
        return AdminHashes(sha256(raw), back_reference_hash(raw))

    @property
    def raw(self) -> bytes:
        """The binary form."""
        body = b"".join(entry.raw for entry in self.entries)
        return b"".join(
            (
                ADMIN_CHAIN,
                exactly(self.previous_back_reference_hash),
                number(self.height, 4),
                varint(len(self.expansion)),
                self.expansion,
                number(len(self.entries), 4),
                number(len(body), 4),
                body,
            )
        )

    @classmethod
    def parse(cls, raw: bytes) -> AdminBlock:
        """Return the block that `raw` is, or raise a `DecodeError`."""
        read = Reader(raw)
        read.constant(ADMIN_CHAIN, "the chain id of the admin block")
        back, height, expansion = read.take(), read.number(4), read.expansion()
        count = read.number(4)
        body = Reader(read.take(read.number(4)))
        read.end()
        entries = tuple(AdminEntry.read(body) for _ in body.counted(count, 2))
        body.end()
        return cls(back, height, entries, expansion)

    def message(self) -> pb.AdminBlock:
        """Return the block as the feed sends it."""
        return pb.AdminBlock(
            header=pb.AdminBlockHeader(
                previousBackRefHash=self.previous_back_reference_hash,
                blockHeight=self.height,
                messageCount=len(self.entries),
            ),
            entries=[entry.message() for entry in self.entries],
            keyMerkleRoot=back_reference_hash(self.raw),
        )

    @classmethod
    def of_message(cls, message: pb.AdminBlock) -> AdminBlock:
        """Return the block that `message` tells; the hash that it claims is not looked at.

        Raises:
            DecodeError: a field holds what no block can.
        """
        header = message.header
        if header.messageCount != len(message.entries):
            refuse(f"{len(message.entries)} entries are listed, {header.messageCount} counted")
        return cls(
            exactly(header.previousBackRefHash),
            header.blockHeight,
            tuple(AdminEntry.of_message(entry) for entry in message.entries),
        )
