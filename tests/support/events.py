"""Events for tests: recorded ones by name, and made-up ones of every shape."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from hypothesis import strategies as st

from bridge.pb.eventmessages.factomEvents_pb2 import FactomEvent
from tests.support.captures import CAPTURES, Capture, find_capture

__all__ = ["SMALL", "captures_found", "recorded_payloads", "small_capture", "some_events"]

SMALL = (
    "allfields-tcp-json",
    "allfields-tcp-protobuf",
    "allfields-udp-json",
    "allfields-udp-protobuf",
    "gap-long",
    "replay-from-height",
    "restart-replay",
    "tcp-json-once",
    "tcp-protobuf-once",
    "udp-protobuf-once",
)
"""The recordings that stand in the repository."""

_INTEGERS = {
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_ENUM: (-(2**31), 2**31 - 1),
}


def small_capture(name: str) -> Capture:
    """Return a recording that stands in the repository."""
    capture = find_capture(name)
    assert capture is not None, f"tests/data/captures/{name} is missing"
    return capture


def captures_found() -> Iterator[tuple[str, Capture]]:
    """Yield every recording that this machine has."""
    for name in CAPTURES:
        capture = find_capture(name)
        if capture is not None:
            yield name, capture


@cache
def recorded_payloads() -> tuple[bytes, ...]:
    """Return each payload of every recording once."""
    found = (payload for _, capture in captures_found() for payload in capture.payloads())
    return tuple(dict.fromkeys(found))


def some_events() -> st.SearchStrategy[FactomEvent]:
    """Return events of every kind, any of their fields set to anything that fits."""
    return _message(FactomEvent.DESCRIPTOR).map(lambda fields: FactomEvent(**fields))


def _message(descriptor: Any) -> st.SearchStrategy[dict[str, Any]]:
    plain = {f.name: _field(f) for f in descriptor.fields if f.containing_oneof is None}
    whole = st.fixed_dictionaries({}, optional=plain)
    members = [f for f in descriptor.fields if f.containing_oneof is not None]
    if not members:
        return whole
    member = st.one_of(
        st.just({}), *(st.fixed_dictionaries({field.name: _field(field)}) for field in members)
    )
    return st.builds(lambda fields, chosen: fields | chosen, whole, member)


def _field(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    one = _one(field)
    return st.lists(one, max_size=2) if field.is_repeated else one


def _one(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return _message(field.message_type)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=33)
    if field.type == FieldDescriptor.TYPE_STRING:
        return st.text(max_size=8)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    least, most = _INTEGERS[field.type]
    return st.integers(least, most)
