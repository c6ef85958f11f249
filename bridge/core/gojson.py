"""Reads the JSON that a node sends with `EventFormat=json`: Go's, not protobuf's own mapping.

Form (Go `json.Marshal` of the gogo-generated structures, factomd v6.5.2): keys are the proto field
names; zero values are left out; bytes are standard base64; enums and 64-bit integers are numbers;
a timestamp is {"seconds", "nanos"}. Each oneof adds a level whose key is the Go name of the oneof:
`Event`, `ProcessListEvent`, `AdminBlockEntry`, `EntryCreditBlockEntry`, `Rcd`; its value is an
object with one member, or null.

The result is the same protobuf message that the node would have sent, so everything behind this
module is common to both encodings. A key that the schema does not know is passed over, as an
unknown protobuf field would be; an unknown *event* is an error of its own, its bytes kept.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from google.protobuf.descriptor import FieldDescriptor

from bridge.errors import DecodeError
from bridge.pb.eventmessages.factomEvents_pb2 import FactomEvent

__all__ = ["MAX_DEPTH", "parse"]

MAX_DEPTH = 32
"""Deepest nesting that is read. A true event has 12 levels."""

_LONGEST_NUMBER = 20
"""Digits of a 64-bit integer with its sign."""

Convert = Callable[[Any, str], Any]
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*+"?|([\[{])|([\]}])', re.DOTALL)


def parse(payload: bytes) -> FactomEvent:
    """Return the event that `payload` holds.

    Raises:
        DecodeError: it is no JSON, or not of the node's form; the sentence names the place.
    """
    if _depth_exceeds(payload, MAX_DEPTH):
        _refuse(f"nested deeper than {MAX_DEPTH} levels")
    try:
        tree = json.loads(
            payload.decode(),
            object_pairs_hook=_unique_keys,
            parse_int=_bounded_int,
            parse_float=_no_fraction,
            parse_constant=_no_fraction,
        )
    except (ValueError, RecursionError) as error:
        raise DecodeError("invalid-json", f"not readable as JSON: {error}") from error
    fields = _message(FactomEvent.DESCRIPTOR)(tree, "event")
    try:
        return FactomEvent(**fields)
    except (TypeError, ValueError) as error:
        raise DecodeError("invalid-json", f"a value does not fit its field: {error}") from error


def _refuse(sentence: str) -> NoReturn:
    raise DecodeError("invalid-json", sentence)


def _depth_exceeds(payload: bytes, limit: int) -> bool:
    if payload.count(b"{") + payload.count(b"[") <= limit:
        return False
    depth = 0
    for match in _BRACKETS.finditer(payload):
        if match[1]:
            depth += 1
            if depth > limit:
                return True
        elif match[2]:
            depth -= 1
    return False


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key[:40]!r} stands twice in one object")
            seen.add(key)
    return tree


def _bounded_int(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:
        raise ValueError("an integer of more than 64 bits")
    return int(digits)


def _no_fraction(text: str) -> NoReturn:
    raise ValueError(f"the number {text[:40]} is no integer")


def _integer(value: Any, place: str) -> int:
    if type(value) is not int:
        _refuse(f"{place}: expected an integer")
    return value


def _boolean(value: Any, place: str) -> bool:
    if type(value) is not bool:
        _refuse(f"{place}: expected true or false")
    return value


def _text(value: Any, place: str) -> str:
    if type(value) is not str:
        _refuse(f"{place}: expected a string")
    return value


def _base64(value: Any, place: str) -> bytes:
    if value is None:
        # Go writes a nil slice inside a list as null.
        return b""
    try:
        return binascii.a2b_base64(_text(value, place), strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise DecodeError("invalid-json", f"{place}: not standard base64: {error}") from error


_SCALARS: Mapping[int, Convert] = {
    FieldDescriptor.TYPE_BYTES: _base64,
    FieldDescriptor.TYPE_STRING: _text,
    FieldDescriptor.TYPE_BOOL: _boolean,
}
_messages: dict[str, Convert] = {}


def _message(descriptor: Any) -> Convert:  # noqa: C901  (three small closures)
    """Return the converter of a message: JSON object -> keyword arguments. Built once per type."""
    if descriptor.full_name in _messages:
        return _messages[descriptor.full_name]
    fields: dict[str, tuple[str, Convert]] = {}
    members: dict[str, Convert] = {}

    def convert(tree: Any, place: str) -> dict[str, Any]:
        if type(tree) is not dict:
            _refuse(f"{place}: expected an object")
        found = {}
        for key, value in tree.items():
            known = fields.get(key)
            if known is not None:
                name, convert_field = known
                found[name] = convert_field(value, key)
            elif key == oneof and value is not None:
                found.update(_one_member(value, key))
        return found

    def _one_member(value: Any, place: str) -> dict[str, Any]:
        if type(value) is not dict or len(value) > 1:
            _refuse(f"{place}: expected null or an object with one member")
        for name, content in value.items():
            if name not in members:
                raise DecodeError("unknown-event", f"{place} holds the unknown member {name[:40]}")
            # Go writes a member that is nil as null; in protobuf that is a member without fields.
            return {name: members[name](content if content is not None else {}, name)}
        return {}

    _messages[descriptor.full_name] = convert
    oneof = None
    for group in descriptor.oneofs:
        oneof = group.name[0].upper() + group.name[1:]
    for field in descriptor.fields:
        converter = _field(field)
        if field.containing_oneof is not None and oneof is not None:
            members[field.name] = converter
        else:
            fields[field.name] = (field.name, converter)
    return convert


def _field(field: FieldDescriptor) -> Convert:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        one = _message(field.message_type)
    else:
        one = _SCALARS.get(field.type, _integer)
    if not field.is_repeated:
        return one

    def many(value: Any, place: str) -> list[Any]:
        if type(value) is not list:
            _refuse(f"{place}: expected a list")
        return [one(item, place) for item in value]

    return many
