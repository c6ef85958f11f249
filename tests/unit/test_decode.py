"""`core.decode`: what a payload is, and its canonical bytes."""

import time
import tracemalloc
from collections import Counter

import pytest

from bridge.core.decode import MAX_PARTS, decode
from bridge.errors import DecodeError
from bridge.model import Kind
from bridge.pb.eventmessages.factomEvents_pb2 import DirectoryBlockCommit, FactomEvent
from tests.support.captures import Capture
from tests.support.events import captures_found
from tests.support.go import go_json

FOUND = dict(captures_found())
KINDS = {
    "chainCommit": Kind.CHAIN_COMMIT,
    "entryCommit": Kind.ENTRY_COMMIT,
    "entryReveal": Kind.ENTRY_REVEAL,
    "stateChange": Kind.STATE_CHANGE,
    "directoryBlockCommit": Kind.DIRECTORY_BLOCK_COMMIT,
    "directoryBlockAnchor": Kind.DIRECTORY_BLOCK_ANCHOR,
    "processListEvent": Kind.PROCESS_LIST_EVENT,
    "nodeMessage": Kind.NODE_MESSAGE,
}


def varint(value: int) -> bytes:
    low, value = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(value) if value else bytes([low])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


@pytest.mark.parametrize("capture", FOUND.values(), ids=FOUND.keys())
def test_recorded_payloads_are_the_events_of_the_independent_decoding(capture: Capture) -> None:
    for payload, told in zip(capture.payloads(), capture.events(), strict=True):
        event = decode(payload)
        if told["which"] is None:
            assert event is None
            continue
        assert event is not None
        assert (event.kind, event.source) == (KINDS[told["which"]], told["src"])
        if event.kind is Kind.DIRECTORY_BLOCK_COMMIT:
            assert event.member.directoryBlock.header.blockHeight == told["height"]
        if "state" in told:
            assert event.member.entityState == told["state"]


@pytest.mark.parametrize("capture", FOUND.values(), ids=FOUND.keys())
def test_canonical_bytes_of_a_protobuf_feed_are_the_nodes_own(capture: Capture) -> None:
    for payload in capture.payloads():
        event = None if payload.startswith(b"{") else decode(payload)
        if event is not None:
            # The member stands last in the envelope, length before it.
            assert payload.endswith(varint(len(event.data)) + event.data)


def test_the_same_event_has_the_same_bytes_in_both_encodings() -> None:
    capture = FOUND["tcp-protobuf-once"]
    counted: Counter[Kind] = Counter()
    for payload in capture.payloads():
        event = decode(payload)
        assert decode(go_json(FactomEvent.FromString(payload))) == event
        counted[event.kind if event else Kind.DEAD_LETTER] += 1
    assert len(counted) == 6 + 1


@pytest.mark.parametrize("payload", [b"", b"\x08\x01", b"{}", b'{"Event":null}', b'{"Event":{}}'])
def test_an_event_with_no_member_is_none(payload: bytes) -> None:
    assert decode(payload) is None


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"\x08\x01" + field(12, b"new"), id="protobuf"),
        pytest.param(field(1000, b""), id="protobuf, empty member of three bytes"),
        pytest.param(field(12, b""), id="protobuf, empty member of two bytes"),
        pytest.param(b'{"Event":{"identityUpdate":{}}}', id="json"),
    ],
)
def test_a_member_that_the_schema_lacks_is_an_unknown_event(payload: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(payload)
    assert caught.value.reason == "unknown-event"


def test_an_unknown_field_beside_a_known_member_is_passed_over_and_kept() -> None:
    event = decode(field(4, b"\x30\x01" + field(99, b"newer")) + field(50, b"x"))
    assert event is not None
    assert event.kind is Kind.CHAIN_COMMIT
    assert field(99, b"newer") in event.data
    assert b"x" not in event.data


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(field(9, field(1, b"\x08\x03") + field(2, b"\x08\x02")), id="minutes"),
        pytest.param(field(4, b"\x08\x01") + field(9, field(1, b"\x08\x03")), id="members"),
        pytest.param(
            field(8, field(4, field(2, field(4, b"\x08\x01") + field(5, b"\x08\x02")))),
            id="credit block",
        ),
    ],
)
def test_of_two_where_there_can_be_one_the_last_is_the_canonical(payload: bytes) -> None:
    event = decode(payload)
    assert event is not None
    assert event.data == event.member.SerializeToString() != b""
    assert len(event.data) < len(payload) - 4


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"\xff", "invalid-protobuf"),
        (b"\x00\x00", "invalid-protobuf"),
        (field(4, b"\x30"), "invalid-protobuf"),
        (field(4, b"\x30\x01")[:-1], "invalid-protobuf"),
        (field(2, b"\xff\xfe"), "invalid-protobuf"),
        (b"GET / HTTP/1.1\r\n\r\n", "invalid-protobuf"),
        (b"{", "invalid-json"),
        (b'{"Event":', "invalid-json"),
    ],
)
def test_what_cannot_be_read_says_why(payload: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(payload)
    assert caught.value.reason == reason


EMPTY_ENTRY = field(6, b"")
"""An entry of a directory block, without fields: the cheapest sub-message."""


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(field(8, EMPTY_ENTRY * (MAX_PARTS + 1)), id="protobuf"),
        pytest.param(
            field(8, EMPTY_ENTRY) * (MAX_PARTS + 1), id="protobuf, member again and again"
        ),
        pytest.param(
            b'{"Event":{"directoryBlockCommit":{"entryBlocks":[' + b"{}," * MAX_PARTS + b"{}]}}}",
            id="json",
        ),
    ],
)
def test_very_many_tiny_parts_are_refused_before_they_cost_memory(payload: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(payload)
    assert caught.value.reason == "too-many-parts"


def test_as_many_parts_as_a_true_block_of_that_size_are_read() -> None:
    entry = {"chainID": b"c" * 32, "hash": b"h" * 32, "content": b"1"}
    member = DirectoryBlockCommit(entryBlockEntries=[entry] * (MAX_PARTS + 10))
    event = decode(FactomEvent(directoryBlockCommit=member).SerializeToString())
    assert event is not None
    assert len(event.member.entryBlockEntries) == MAX_PARTS + 10


@pytest.mark.parametrize("tail", [b"\x0b", b"\x80" * 11, b"\x80", field(4, b"x")[:-1]])
def test_damage_in_a_large_payload_is_invalid_protobuf(tail: bytes) -> None:
    payload = field(7, b"") + field(2, b"n" * (2 * MAX_PARTS)) + tail
    with pytest.raises(DecodeError) as caught:
        decode(payload)
    assert caught.value.reason == "invalid-protobuf"


@pytest.mark.parametrize(
    "payload",
    [
        b"\x08\x00" * 8_000_000,
        b"\x78\x00" * 8_000_000,
        b"\x32" + b"\x86\x80\x80\x04" + b"\x12\x82\x80\x80\x04" + b"\x12\x00" * 4_194_305,
        b'{"Event":{"entryReveal":{"entry":{"externalIDs":[' + b'"",' * 5_000_000 + b'""]}}}}',
        b'{"a":[' + b"1," * 5_000_000 + b"1]}",
    ],
    ids=["one field", "unknown fields", "empty lists", "empty strings", "numbers"],
)
def test_a_payload_of_very_many_tiny_fields_is_refused_in_little_time_and_memory(
    payload: bytes,
) -> None:
    began = time.process_time()
    with pytest.raises(DecodeError):
        decode(payload)
    # Of a processor: a third to half of a second is usual.
    assert time.process_time() - began < 5
    # Traced it takes ten times as long.
    tracemalloc.start()
    with pytest.raises(DecodeError):
        decode(payload)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000_000
