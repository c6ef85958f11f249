"""Describes what is published as an AsyncAPI 3 document: topics, subjects, headers, data.

Generated from the same tables that publish: routes, facts and schemas. What it says of a message
is checked against real ones in `tests/conformance`.
"""

from __future__ import annotations

from typing import Any, Literal

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

from bridge.core.facts import FACTS
from bridge.core.render import CONTENT_TYPES, MESSAGE_TYPES, Format, schema_uri, type_of
from bridge.core.routing import SINGLE_PARTITION, Routes
from bridge.model import Kind

__all__ = ["data_schema", "document"]

Schema = dict[str, Any]

_COMMON = {
    "specversion": {"const": "1.0"},
    "id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    "source": {"type": "string", "format": "uri-reference"},
    "type": {"type": "string"},
    "dataschema": {"type": "string", "format": "uri"},
    "time": {"type": "string", "format": "date-time"},
    "recordedtime": {"type": "string", "format": "date-time"},
    "sequence": {"type": "string", "pattern": "^[0-9]{20}$"},
}
_OPTIONAL = {
    "subject": {"type": "string"},
    "partitionkey": {"type": "string"},
    "origin": {"enum": ["live", "replay", "api"]},
    "nodeidentity": {"type": "string", "pattern": "^([0-9a-f]{2})+$"},
    "dataref": {"type": "string", "format": "uri"},
    "datasize": {"type": "string", "pattern": "^[0-9]+$"},
    "datasha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
}
_EXTENSIONS = {
    "entitystate": {"type": "string"},
    "blockheight": {"type": "string", "pattern": "^[0-9]+$"},
    "blockdetail": {"enum": ["summary", "hashes", "full"]},
    "chainid": {"type": "string", "pattern": "^([0-9a-f]{2})*$"},
}
_TOKENS = {
    Kind.ENTRY_REVEAL: "chainId",
    Kind.GAP_ALERT: "status",
    Kind.DEAD_LETTER: "reason",
}
_INTEGERS_AS_TEXT = {FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64}


def document(
    routes: Routes, version: str, format: Format, json_bytes: Literal["hex", "base64"]
) -> Schema:
    """Return the AsyncAPI document of a bridge with these routes and this format."""
    kinds = [kind for kind in Kind if kind not in routes.off]
    schemas: dict[str, Schema] = {}
    channels, messages, operations = {}, {}, {}
    for kind in kinds:
        messages[kind.value] = _message(kind, format, json_bytes, schemas)
        for broker in ("kafka", "nats"):
            name = f"{broker}-{kind}"
            channels[name] = _channel(kind, routes.topics[kind], broker)
            operations[f"send-{name}"] = {
                "action": "send",
                "channel": {"$ref": f"#/channels/{name}"},
            }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "factom-bridge",
            "version": version,
            "description": "The live feed of Factom nodes, by event type, as CloudEvents 1.0.",
        },
        "defaultContentType": CONTENT_TYPES[format],
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas},
    }


def _channel(kind: Kind, topic: str, broker: str) -> Schema:
    channel: Schema = {
        "address": topic,
        "messages": {kind.value: {"$ref": f"#/components/messages/{kind}"}},
    }
    token = _TOKENS.get(kind)
    if broker == "nats" and token is not None:
        channel |= {"address": f"{topic}.{{{token}}}", "parameters": {token: {}}}
    if broker == "kafka" and kind in SINGLE_PARTITION:
        channel["bindings"] = {"kafka": {"partitions": 1}}
    return channel


def _message(
    kind: Kind, format: Format, json_bytes: Literal["hex", "base64"], schemas: dict[str, Schema]
) -> Schema:
    descriptor = MESSAGE_TYPES[kind].DESCRIPTOR
    attributes = _COMMON | _OPTIONAL
    attributes |= {name: _EXTENSIONS[name] for name in FACTS[kind].extensions}
    attributes |= {"type": {"const": type_of(kind)}, "dataschema": {"const": schema_uri(kind)}}
    message: Schema = {
        "name": kind.value,
        "contentType": CONTENT_TYPES[format],
        "headers": {
            "type": "object",
            "description": "CloudEvents attributes: `ce_` on Kafka, `ce-` on NATS before each.",
            "properties": attributes,
            "required": [*_COMMON, *FACTS[kind].extensions],
        },
    }
    if format == "json":
        message["payload"] = _reference(descriptor, json_bytes, schemas)
    else:
        message["payload"] = {"description": f"protobuf message {descriptor.full_name}"}
    return message


def data_schema(kind: Kind, json_bytes: Literal["hex", "base64"] = "hex") -> Schema:
    """Return the JSON Schema of the data of `kind`, complete in itself."""
    schemas: dict[str, Schema] = {}
    root = _reference(MESSAGE_TYPES[kind].DESCRIPTOR, json_bytes, schemas)
    return root | {"components": {"schemas": schemas}}


def _reference(
    descriptor: Any, json_bytes: Literal["hex", "base64"], schemas: dict[str, Schema]
) -> Schema:
    name = descriptor.full_name
    if name not in schemas:
        schemas[name] = {}
        schemas[name] = {
            "type": "object",
            "properties": {
                field.json_name: _field(field, json_bytes, schemas) for field in descriptor.fields
            },
            "additionalProperties": False,
        }
    return {"$ref": f"#/components/schemas/{name}"}


def _field(
    field: FieldDescriptor, json_bytes: Literal["hex", "base64"], schemas: dict[str, Schema]
) -> Schema:
    one = _one(field, json_bytes, schemas)
    return {"type": "array", "items": one} if field.is_repeated else one


def _one(field: Any, json_bytes: Literal["hex", "base64"], schemas: dict[str, Schema]) -> Schema:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        if field.message_type.full_name == Timestamp.DESCRIPTOR.full_name:
            return {"type": "string", "format": "date-time"}
        return _reference(field.message_type, json_bytes, schemas)
    if field.type == FieldDescriptor.TYPE_BYTES:
        if json_bytes == "hex":
            return {"type": "string", "pattern": "^([0-9a-f]{2})*$"}
        return {"type": "string", "contentEncoding": "base64"}
    if field.type == FieldDescriptor.TYPE_ENUM:
        names = [value.name for value in field.enum_type.values]
        return {"anyOf": [{"enum": names}, {"type": "integer"}]}
    if field.type in _INTEGERS_AS_TEXT:
        return {"type": "string", "pattern": "^-?[0-9]+$"}
    if field.type == FieldDescriptor.TYPE_BOOL:
        return {"type": "boolean"}
    return {"type": "string" if field.type == FieldDescriptor.TYPE_STRING else "integer"}
