"""Turns what a consumer has in hand back into the protobuf message that it is."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any, Literal

import orjson
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError as ProtobufError
from google.protobuf.timestamp_pb2 import Timestamp

from bridge.core.render import CONTENT_TYPES, MESSAGE_TYPES
from bridge.errors import DecodeError
from bridge.model import Kind
from bridge.verifying.source import Published, Source

__all__ = ["Data"]

Read = Callable[[Any], Any]

_NUMBERS_IN_STRINGS = (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64)


class Data:
    """Reads the data of messages of `source`; `json_bytes` says how JSON writes bytes there."""

    def __init__(self, source: Source, json_bytes: Literal["hex", "base64"]) -> None:
        self._source = source
        self._bytes: Read = bytes.fromhex if json_bytes == "hex" else _base64
        self._readers: dict[str, Read] = {}

    async def read(self, kind: Kind, message: Published) -> Any:
        """Return the member message.

        Raises:
            DecodeError: there is none; the sentence says where and why.
        """
        data = await self._redeemed(message)
        type_ = MESSAGE_TYPES[kind]
        told = message.attributes.get("datacontenttype")
        try:
            if told == CONTENT_TYPES["protobuf"]:
                return type_.FromString(data)
            if told == CONTENT_TYPES["json"]:
                return type_(**self._message(type_.DESCRIPTOR)(orjson.loads(data)))
        except (ProtobufError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise DecodeError("unreadable", f"{message.place}: unreadable: {error}") from error
        raise DecodeError("unreadable", f"{message.place}: data of the type {told}")

    async def _redeemed(self, message: Published) -> bytes:
        """Return the data, from where a claim check says that it is."""
        reference = message.attributes.get("dataref")
        if reference is None:
            return message.data
        try:
            data = await self._source.fetch(reference)
        except (LookupError, ValueError) as error:
            raise DecodeError("lost", f"{message.place}: {reference} is not there") from error
        if hashlib.sha256(data).hexdigest() != message.attributes.get("datasha256"):
            raise DecodeError("lost", f"{message.place}: {reference} has another SHA-256")
        return data

    def _message(self, descriptor: Any) -> Read:
        """Return what turns a JSON object into the arguments of a message."""
        name = descriptor.full_name
        known = self._readers.get(name)
        if known is not None:
            return known
        fields: dict[str, tuple[str, Read | None]] = {}

        def read(tree: dict[str, Any]) -> dict[str, Any]:
            found = {}
            for key, value in tree.items():
                field, convert = fields[key]
                found[field] = value if convert is None else convert(value)
            return found

        self._readers[name] = read
        for field in descriptor.fields:
            fields[field.json_name] = (field.name, self._field(field))
        return read

    def _field(self, field: FieldDescriptor) -> Read | None:
        one = self._one(field)
        if one is None or not field.is_repeated:
            return one
        return lambda values: [one(value) for value in values]

    def _one(self, field: FieldDescriptor) -> Read | None:
        inner = field.message_type
        if inner is not None:
            if inner.full_name == Timestamp.DESCRIPTOR.full_name:
                return _timestamp
            return self._message(inner)
        if field.type == FieldDescriptor.TYPE_BYTES:
            return self._bytes
        return int if field.type in _NUMBERS_IN_STRINGS else None


def _base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _timestamp(text: str) -> Timestamp:
    found = Timestamp()
    found.FromJsonString(text)
    return found
