"""Go's `json.Marshal` of the feed's messages, written anew from `shared/feed-schema.md`.

It shares nothing with `bridge.core.gojson` but the schema: what one writes the other must read.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

__all__ = ["go_json"]

_ESCAPES = (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"))
_LINE_ENDS = (("\u2028", "\\u2028"), ("\u2029", "\\u2029"))


def go_json(message: Message) -> bytes:
    """Return `message` as a node with `EventFormat=json` writes it."""
    text = json.dumps(_tree(message), ensure_ascii=False, separators=(",", ":"))
    for plain, escaped in (*_ESCAPES, *_LINE_ENDS):
        text = text.replace(plain, escaped)
    return text.encode()


def _tree(message: Any) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.containing_oneof is not None:
            tree.setdefault(_wrapper(field), None)
            if message.HasField(field.name):
                tree[_wrapper(field)] = {field.name: _one(field, getattr(message, field.name))}
        elif field.is_repeated:
            items = [_one(field, item) for item in getattr(message, field.name)]
            if items:
                tree[field.name] = items
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            if message.HasField(field.name):
                tree[field.name] = _tree(getattr(message, field.name))
        elif value := getattr(message, field.name):
            tree[field.name] = _one(field, value)
    return tree


def _wrapper(field: FieldDescriptor) -> str:
    assert field.containing_oneof is not None
    name = field.containing_oneof.name
    return name[0].upper() + name[1:]


def _one(field: FieldDescriptor, value: Any) -> Any:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return _tree(value)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return base64.b64encode(value).decode()
    return value
