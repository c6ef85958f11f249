"""What the compiled part is told of the message types: a table of fields for each (`_native.c`)."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import orjson
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

__all__ = ["Tables"]

_VARINT, _SIZED = 0, 2
"""Wire types."""

_ENUM, _OCTETS, _TIME, _MESSAGE = 4, 5, 7, 8
_TYPES = {
    FieldDescriptor.TYPE_INT32: 0,
    FieldDescriptor.TYPE_UINT32: 1,
    FieldDescriptor.TYPE_INT64: 2,
    FieldDescriptor.TYPE_UINT64: 2,
    FieldDescriptor.TYPE_BOOL: 3,
    FieldDescriptor.TYPE_ENUM: _ENUM,
    FieldDescriptor.TYPE_BYTES: _OCTETS,
    FieldDescriptor.TYPE_STRING: 6,
}
"""As `_native.c` numbers them; all the schema has."""


class Tables:
    """The tables of `compiled`, each made once from the type's descriptor."""

    def __init__(self, compiled: ModuleType) -> None:
        self._compiled = compiled
        self._known: dict[str, Any] = {}

    def of(self, descriptor: Any) -> Any:
        """Return the table of a message type."""
        found = self._known.get(descriptor.full_name)
        if found is None:
            fields = sorted(descriptor.fields, key=lambda field: field.number)
            found = self._compiled.table(tuple(map(self._row, fields)))
            self._known[descriptor.full_name] = found
        return found

    def _row(self, field: Any) -> tuple[int, int, bool, bool, bool, bytes, Any]:
        """Return what is told of a field. No type of the schema holds itself."""
        type_, of = _TYPES.get(field.type, _MESSAGE), None
        if type_ == _ENUM:
            values = field.enum_type.values_by_number.items()
            of = {number: orjson.dumps(value.name) for number, value in values}
        elif type_ == _MESSAGE and field.message_type.full_name == Timestamp.DESCRIPTOR.full_name:
            type_ = _TIME
        elif type_ == _MESSAGE:
            of = self.of(field.message_type)
        keeps = field.is_repeated or field.has_presence
        # Of one alone, which is how `optional` is told, there cannot be two.
        chosen = field.containing_oneof is not None and len(field.containing_oneof.fields) > 1
        tag = field.number << 3 | (_SIZED if type_ >= _OCTETS else _VARINT)
        name = orjson.dumps(field.json_name) + b":"
        return tag, type_, field.is_repeated, keeps, chosen, name, of
