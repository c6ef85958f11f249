"""Tells what a payload is: protobuf or Go's JSON, which event, and its canonical bytes.

`data` is the deterministic protobuf serialisation of the member message. A node writes its fields
in the same order, so for a protobuf feed these are the node's own bytes; for a JSON feed they are
the bytes the node would have sent. Ids are made from them, which is why they are the same from
every node, transport and encoding.

Whatever the bytes, the only exception that leaves this module is `DecodeError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError as ProtobufError

from bridge.core import gojson
from bridge.core.native import native
from bridge.core.tables import Tables
from bridge.errors import DecodeError
from bridge.model import Kind
from bridge.pb.eventmessages.factomEvents_pb2 import FactomEvent

__all__ = ["MAX_PARTS", "Event", "decode", "is_light"]

MAX_PARTS = 100_000
"""Fields that any payload may have; a longer one may have as many as a true block could."""

_BYTES_PER_PART = 12
"""Less than any true block needs on average for a field: hashes alone are 32 bytes."""

_MOST_PARTS = 700_000
"""More than a true block of the largest size has."""

_MOST_IN_JSON = 250_000
"""Each takes 200 bytes and more while it is read. Ten minutes would have to bring 400 a second."""

_MOST_WIDE_BYTES = 1024 * 1024
"""Events have text only in what nodes say of themselves, which is short; all else is base64."""

_SMALLEST_PART = 2
_VALUES_PER_PART = 4
"""Values of a message without sub-messages cost that much less, and true ones may be tiny."""

_KINDS = {
    "chainCommit": Kind.CHAIN_COMMIT,
    "entryCommit": Kind.ENTRY_COMMIT,
    "entryReveal": Kind.ENTRY_REVEAL,
    "stateChange": Kind.STATE_CHANGE,
    "directoryBlockCommit": Kind.DIRECTORY_BLOCK_COMMIT,
    "processListEvent": Kind.PROCESS_LIST_EVENT,
    "nodeMessage": Kind.NODE_MESSAGE,
    "directoryBlockAnchor": Kind.DIRECTORY_BLOCK_ANCHOR,
}
_from_protobuf = FactomEvent.FromString
_TABLE = Tables(native).of(FactomEvent.DESCRIPTOR) if native is not None else None

_LIGHT_BYTES, _LIGHT_PARTS = 4 * 1024 * 1024, 20_000
"""A payload within both is decoded and hashed in a few milliseconds."""


class Event(NamedTuple):
    """A decoded event of the feed."""

    kind: Kind
    source: int
    """`eventSource` of the envelope: 0 live, 1 replayed, -1 when the node had no state."""
    identity: bytes
    """The node's identity chain id; empty when it has none."""
    member: Any
    """The member message (an EntryCommit, say)."""
    data: bytes


def decode(payload: bytes) -> Event | None:
    """Return the event in `payload`, or None where the node had nothing to say (no member set).

    Raises:
        DecodeError: with the dead letter's reason: `invalid-protobuf`, `invalid-json`,
            `too-many-parts`, `too-costly`, or `unknown-event` (a newer node's).
    """
    # No FactomEvent begins with "{": as a protobuf tag it would open a group of field 15.
    last = 0
    if payload[:1] == b"{":
        _bound_json(payload)
        event = gojson.parse(payload)
    else:
        parts, last = _form(payload)
        if not 0 < parts <= MAX_PARTS and len(payload) > MAX_PARTS * _SMALLEST_PART:
            _bound_parts(payload)
        try:
            event = _from_protobuf(payload)
        except ProtobufError as error:
            raise DecodeError("invalid-protobuf", f"not readable as protobuf: {error}") from error
    name = event.WhichOneof("event")
    if name is None:
        if _has_unknown(event):
            raise DecodeError("unknown-event", "the event has a member that the schema lacks")
        return None
    member = getattr(event, name)
    return Event(
        _KINDS[name],
        event.eventSource,
        event.identityChainID,
        member,
        # The schema has no maps, and so only one order; told to be deterministic, the library
        # takes twice as long to write the same bytes.
        payload[last:] if last else member.SerializeToString(),
    )


def is_light(payload: bytes | memoryview) -> bool:
    """Say whether a payload, however large, takes little memory and time to decode."""
    return len(payload) <= _LIGHT_BYTES and 0 < _form(payload)[0] <= _LIGHT_PARTS


def _form(payload: bytes | memoryview) -> tuple[int, int]:
    """Return how many fields a payload has that stands as the serialiser writes it, and its member.

    That is where the member's content begins. (0, 0): it does not, or there is no compiled part.
    """
    if native is None:
        return 0, 0
    found: tuple[int, int] = native.form(_TABLE, payload)
    return found


def _has_unknown(event: FactomEvent) -> bool:
    """Say whether there is more in an event without a member than its envelope."""
    for name in ("eventSource", "factomNodeName", "identityChainID"):
        event.ClearField(name)
    return event.ByteSize() > 0


def _allowed_parts(size: int) -> int:
    return max(MAX_PARTS, min(size // _BYTES_PER_PART, _MOST_PARTS))


def _bound_json(payload: bytes) -> None:
    """Refuse JSON of very many tiny values before the parser gives each its memory."""
    allowed = min(_allowed_parts(len(payload)), _MOST_IN_JSON)
    structures = payload.count(b"{") + payload.count(b"[")
    # Of a large block most values are hashes, which have 47 bytes as JSON.
    most = max(_VALUES_PER_PART * MAX_PARTS, allowed)
    if structures > allowed or payload.count(b",") > most or payload.count(b'"') > 2 * most:
        raise DecodeError("too-many-parts", "more values than a true event has")
    if len(payload) > _MOST_WIDE_BYTES and not payload.isascii():
        # One such character, and the parser takes four bytes for each of the others.
        raise DecodeError("too-costly", "a large event with other characters than ASCII")


_Shape = dict[int, Any]
"""Numbers of a message's sub-message fields, each with that message's own shape.

Messages that have a bounded number of values are left out.
"""


def _shape(descriptor: Any, known: dict[str, _Shape]) -> _Shape:
    shape = known.get(descriptor.full_name)
    if shape is None:
        shape = known[descriptor.full_name] = {}
        for field in descriptor.fields:
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                inner = _shape(field.message_type, known)
                if inner or any(each.is_repeated for each in field.message_type.fields):
                    shape[field.number] = inner
    return shape


_EVENT_SHAPE: Mapping[int, Any] = _shape(FactomEvent.DESCRIPTOR, {})


def _bound_parts(payload: bytes) -> None:
    """Refuse a payload of very many tiny sub-messages before the parser gives each its memory."""
    left = _allowed_parts(len(payload)) * _VALUES_PER_PART
    stack: list[tuple[int, int, Mapping[int, Any]]] = [(0, len(payload), _EVENT_SHAPE)]
    try:
        while stack:
            at, end, shape = stack.pop()
            cost = _VALUES_PER_PART if shape else 1
            while at < end:
                tag, at = _varint(payload, at)
                left -= cost
                wire = tag & 7
                if wire == 2:
                    size, at = _varint(payload, at)
                    inner = shape.get(tag >> 3)
                    if inner is not None and size:
                        stack.append((at, min(at + size, end), inner))
                    at += size
                elif wire == 0:
                    _, at = _varint(payload, at)
                elif wire == 5:
                    at += 4
                elif wire == 1:
                    at += 8
                else:
                    raise DecodeError("invalid-protobuf", f"wire type {wire} is not of this schema")
                if left < 0:
                    raise DecodeError("too-many-parts", "more fields than a true block has")
    except IndexError as error:
        raise DecodeError("invalid-protobuf", "the payload ends within a field") from error


def _varint(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    value, shift = byte & 0x7F, 7
    while True:
        at += 1
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
        shift += 7
        if shift > 63:
            raise DecodeError("invalid-protobuf", "a varint of more than ten bytes")
