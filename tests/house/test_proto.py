"""The schemas in proto/: generated code is current, and the feed's schema is the nodes'."""

import importlib.util
import json
import pickle
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from bridge.pb.bridge.v1 import block_receipt_pb2, dead_letter_pb2, gap_alert_pb2
from bridge.pb.eventmessages import (
    adminBlock_pb2,
    directoryBlock_pb2,
    entryBlock_pb2,
    factoidBlock_pb2,
    factomEvents_pb2,
    sharedTypes_pb2,
)
from bridge.pb.eventmessages.factomEvents_pb2 import FactomEvent

ROOT = Path(__file__).resolve().parents[2]
CAPTURE = ROOT / "tests" / "data" / "captures" / "allfields-tcp-protobuf"
FRAME_HEAD = 5

FEED: list[FileDescriptor] = [
    adminBlock_pb2.DESCRIPTOR,
    directoryBlock_pb2.DESCRIPTOR,
    entryBlock_pb2.DESCRIPTOR,
    factoidBlock_pb2.DESCRIPTOR,
    factomEvents_pb2.DESCRIPTOR,
    sharedTypes_pb2.DESCRIPTOR,
]
OWN: list[FileDescriptor] = [
    block_receipt_pb2.DESCRIPTOR,
    dead_letter_pb2.DESCRIPTOR,
    gap_alert_pb2.DESCRIPTOR,
]

SCALARS = {
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_UINT64: "uint64",
}


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    # By path: proto/ is a folder of schemas, not a package.
    spec = importlib.util.spec_from_file_location("proto_generate", ROOT / "proto" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_code_is_current(generator: ModuleType) -> None:
    assert generator.stale_files() == [], "run: make proto"


def test_generated_code_that_was_edited_removed_or_left_over_is_named(
    generator: ModuleType, tmp_path: Path
) -> None:
    out = tmp_path / "pb"
    shutil.copytree(generator.OUT, out, ignore=shutil.ignore_patterns("__pycache__"))
    with (out / "eventmessages" / "factomEvents_pb2.py").open("a") as file:
        file.write("# by hand\n")
    (out / "bridge" / "v1" / "gap_alert_pb2.pyi").unlink()
    (out / "eventmessages" / "gone_pb2.py").touch()

    assert generator.stale_files(out) == [
        "bridge/v1/gap_alert_pb2.pyi",
        "eventmessages/factomEvents_pb2.py",
        "eventmessages/gone_pb2.py",
    ]


def test_names_in_the_descriptor_pool_are_those_of_the_nodes() -> None:
    names = {(file.name.rpartition("/")[0], file.package) for file in FEED}
    assert names == {("eventmessages", "eventmessages")}
    assert {(file.name.rpartition("/")[0], file.package) for file in OWN} == {
        ("bridge/v1", "bridge.v1")
    }


@pytest.mark.parametrize("file", FEED, ids=lambda file: file.name)
def test_the_feed_schema_equals_the_table_both_ways(file: FileDescriptor) -> None:
    table = json.loads((Path(__file__).parent / "feed_schema.json").read_text(encoding="utf-8"))
    assert sorted(table["files"]) == sorted(other.name for other in FEED)
    assert _as_table(file) == table["files"][file.name]


@pytest.mark.parametrize("file", OWN, ids=lambda file: file.name)
def test_every_enum_of_the_bridge_starts_unspecified_and_prefixes_its_values(
    file: FileDescriptor,
) -> None:
    nested = [
        enum for message in file.message_types_by_name.values() for enum in message.enum_types
    ]
    for enum in [*file.enum_types_by_name.values(), *nested]:
        prefix = enum.name.upper() + "_"
        assert enum.values_by_number[0].name == prefix + "UNSPECIFIED"
        assert all(value.name.startswith(prefix) for value in enum.values)


def test_every_recorded_event_has_no_unknown_field_and_serialises_to_the_same_bytes() -> None:
    payloads = list(_payloads())
    assert payloads
    for payload in payloads:
        event = FactomEvent.FromString(payload)
        assert _unknown_fields(event) == []
        assert event.SerializeToString(deterministic=True) == payload


def test_the_recording_sets_every_field_of_the_feed_schema() -> None:
    seen = {
        field.full_name
        for payload in _payloads()
        for message in _walk(FactomEvent.FromString(payload))
        for field, _ in message.ListFields()
    }
    fields = {
        field.full_name
        for file in FEED
        for message in file.message_types_by_name.values()
        for field in message.fields
    }
    assert fields - seen == set()


def test_a_message_survives_pickling() -> None:
    event = FactomEvent.FromString(max(_payloads(), key=len))
    assert pickle.loads(pickle.dumps(event)) == event


def _as_table(file: FileDescriptor) -> dict[str, Any]:
    messages = file.message_types_by_name
    # All the table knows is flat: nothing may hide inside a message.
    assert not any(message.nested_types or message.enum_types for message in messages.values())
    return {
        "messages": {name: _fields(message) for name, message in messages.items()},
        "enums": {name: _values(enum) for name, enum in file.enum_types_by_name.items()},
    }


def _fields(message: Descriptor) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for field in message.fields:
        oneof = field.containing_oneof
        repeated = "repeated" if field.is_repeated else ""
        rows.append(
            [field.number, field.name, _type(field), repeated, "" if oneof is None else oneof.name]
        )
    return sorted(rows)


def _values(enum: EnumDescriptor) -> list[list[Any]]:
    return sorted([value.number, value.name] for value in enum.values)


def _type(field: FieldDescriptor) -> str:
    named = field.message_type or field.enum_type
    if named is None:
        return SCALARS[field.type]
    return str(named.full_name).removeprefix("eventmessages.")


def _payloads() -> Iterator[bytes]:
    """Cuts the recorded connection into payloads: a byte 1, the length, the payload."""
    stream = (CAPTURE / "part0-conn-00.bin").read_bytes()
    lines = (CAPTURE / "events.jsonl").read_text(encoding="utf-8").splitlines()
    offsets = [json.loads(line)["off"] for line in lines]
    for start, end in pairwise([*offsets, len(stream)]):
        assert stream[start] == 1
        length = int.from_bytes(stream[start + 1 : start + FRAME_HEAD], "little", signed=True)
        assert start + FRAME_HEAD + length == end
        yield stream[start + FRAME_HEAD : end]


def _walk(message: Message) -> Iterator[Message]:
    """The message and every message inside it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else [value]:
                yield from _walk(inner)


def _unknown_fields(event: Message) -> list[str]:
    return [
        f"{message.DESCRIPTOR.full_name} field {unknown[index].field_number}"
        for message in _walk(event)
        for unknown in [UnknownFieldSet(message)]
        for index in range(len(unknown))
    ]
