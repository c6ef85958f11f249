r"""Writes a message as Go's `json.Marshal` writes the node's structures, byte for byte.

The counterpart of `bridge.core.gojson`, which tells the form. Beyond that: fields stand in the
order of their numbers, but for one; a oneof's level stands where its members do, with null when none is set;
strings escape `<`, `>`, `&`, U+2028 and U+2029 and, as Go did until 1.21, each control character
but tab, line feed and carriage return by its number; a byte that is no UTF-8 becomes `\ufffd`.

One thing that Go can hold is lost in protobuf, and so cannot be written: a member that is nil
(`"Event":{}`, seen only in made-up events).
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

__all__ = ["dumps", "quote"]

Write = Callable[[Any], bytes]

_MOVED = {"eventmessages.Transaction": {9: 2.5}}
"""Fields that the node's structures have elsewhere than by their number: minuteNumber."""

_ESCAPED = re.compile('["\\\\<>&\0-\x1f\u2028\u2029\ud800-\udfff]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def dumps(message: Message) -> bytes:
    """Return `message` as a node with `EventFormat=json` sends it."""
    return _message(message.DESCRIPTOR)(message)


def quote(text: str | bytes) -> bytes:
    """Return `text` as a JSON string of Go; bytes need not be UTF-8, as Go's strings need not."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    return b'"%b"' % _ESCAPED.sub(_escape, text).encode()


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    if "\ud800" <= character <= "\udfff":
        return "\\ufffd"
    return _SHORT.get(character) or f"\\u{ord(character):04x}"


def _bytes(value: bytes) -> bytes:
    return b'"%b"' % binascii.b2a_base64(value, newline=False)


def _integer(value: int) -> bytes:
    return b"%d" % value


def _boolean(value: bool) -> bytes:  # noqa: FBT001  (a value, not a switch)
    return b"true" if value else b"false"


_SCALARS: dict[int, Write] = {
    FieldDescriptor.TYPE_BYTES: _bytes,
    FieldDescriptor.TYPE_STRING: quote,
    FieldDescriptor.TYPE_BOOL: _boolean,
}
_messages: dict[str, Write] = {}


def _message(descriptor: Any) -> Write:
    """Return the writer of a message, built once per type from its descriptor."""
    known = _messages.get(descriptor.full_name)
    if known is not None:
        return known
    fields: dict[int, tuple[bytes, Write]] = {}
    members = {member.number for group in descriptor.oneofs for member in group.fields}
    last = max(members, default=0)
    null = b"".join(_level(group) + b"null" for group in descriptor.oneofs)
    moved = _MOVED.get(descriptor.full_name)

    def write(message: Any) -> bytes:
        parts = []
        awaited = bool(members)
        found = message.ListFields()
        if moved:
            found.sort(key=lambda item: moved.get(item[0].number, item[0].number))
        for field, value in found:
            number = field.number
            if awaited and number in members:
                awaited = False
            elif awaited and number > last:
                parts.append(null)
                awaited = False
            key, one = fields[number]
            parts.append(key + one(value))
        if awaited:
            parts.append(null)
        return b"{%b}" % b",".join(parts)

    # Known before its fields are: they may be of the same type.
    _messages[descriptor.full_name] = write
    for field in descriptor.fields:
        group = field.containing_oneof
        if group is None:
            fields[field.number] = (b'"%b":' % field.name.encode(), _field(field))
        else:
            fields[field.number] = (_level(group), _member(field))
    return write


def _level(group: Any) -> bytes:
    """Return the key of a oneof: its name as Go has it."""
    return b'"%b":' % (group.name[0].upper() + group.name[1:]).encode()


def _member(field: FieldDescriptor) -> Write:
    key, one = b'{"%b":' % field.name.encode(), _one(field)
    return lambda value: key + one(value) + b"}"


def _field(field: FieldDescriptor) -> Write:
    one = _one(field)
    if not field.is_repeated:
        return one
    return lambda values: b"[%b]" % b",".join([one(value) for value in values])


def _one(field: FieldDescriptor) -> Write:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return _message(field.message_type)
    return _SCALARS.get(field.type, _integer)
