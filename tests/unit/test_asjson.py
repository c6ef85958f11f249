"""`core.asjson`: protobuf's JSON mapping, bytes in hex or base64."""

import base64
import json
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import Error, MessageToDict, Parse
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, strategies as st

from bridge.core.asjson import JsonWriter, rfc3339
from bridge.core.decode import decode
from bridge.errors import DecodeError
from bridge.pb.bridge.v1.block_receipt_pb2 import BlockReceipt
from bridge.pb.bridge.v1.dead_letter_pb2 import DeadLetter
from bridge.pb.bridge.v1.gap_alert_pb2 import GapAlert, HeightRange
from bridge.pb.eventmessages.factomEvents_pb2 import ChainCommit, FactomEvent
from tests.support.events import recorded_payloads, some_events

BASE64, HEX = JsonWriter("base64"), JsonWriter("hex")


def recorded_members() -> list[Any]:
    return [event.member for event in map(decode, recorded_payloads()) if event is not None]


def with_hex(message: Any) -> dict[str, Any]:
    """The canonical mapping of `message`, each bytes field turned to hex by its descriptor."""
    tree: dict[str, Any] = MessageToDict(message)
    _turn(message.DESCRIPTOR, tree)
    return tree


def _turn(descriptor: Any, tree: Any) -> None:
    for field in descriptor.fields:
        value = tree.get(field.json_name)
        if value is None:
            continue
        if field.type == FieldDescriptor.TYPE_BYTES:
            texts = [base64.b64decode(text).hex() for text in _list(value)]
            tree[field.json_name] = texts if field.is_repeated else texts[0]
        elif field.type == FieldDescriptor.TYPE_MESSAGE and not isinstance(value, str):
            for item in _list(value):
                _turn(field.message_type, item)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_every_recorded_event_is_written_as_protobuf_itself_writes_it() -> None:
    members = recorded_members()
    assert len(members) > 500
    for member in members:
        assert json.loads(BASE64.write(member)) == MessageToDict(member)


def test_hex_differs_in_bytes_fields_only() -> None:
    for member in recorded_members():
        assert json.loads(HEX.write(member)) == with_hex(member)


def test_base64_is_read_back_by_protobuf_itself() -> None:
    for member in recorded_members():
        assert Parse(BASE64.write(member), type(member)()) == member


AT = Timestamp(seconds=1_700_000_000, nanos=5_000_000)


@pytest.mark.parametrize(
    "message",
    [
        GapAlert(
            gap_id="n-1-2",
            type=GapAlert.TYPE_GAP,
            missing=[HeightRange(first=1, last=2**32 - 1)],
            missing_count=2**40,
            opened_at=AT,
            height_before=0,
        ),
        BlockReceipt(height=1, key_merkle_root=b"\xfb\xff", complete=True, reveals_missing=0),
        DeadLetter(reason="x", payload=b"\xfb\xff", seq=2**63, received_at=AT),
        ChainCommit(entityState=77),  # type: ignore[arg-type]
    ],
)
def test_the_bridges_own_messages_follow_the_mapping_too(message: Any) -> None:
    assert json.loads(BASE64.write(message)) == MessageToDict(message)


@given(some_events())
def test_any_event_is_written_as_protobuf_writes_it_or_refused_for_its_timestamp(
    event: FactomEvent,
) -> None:
    try:
        canonical = MessageToDict(event)
    except Error as error:
        assert "Timestamp is not valid" in str(error)
        with pytest.raises(DecodeError, match="timestamp"):
            BASE64.write(event)
    else:
        assert json.loads(BASE64.write(event)) == canonical


@given(st.integers(-62_135_596_800, 253_402_300_799), st.integers(0, 999_999_999))
def test_times_are_written_as_protobuf_writes_them(seconds: int, nanos: int) -> None:
    assert rfc3339(seconds, nanos) == Timestamp(seconds=seconds, nanos=nanos).ToJsonString()


@pytest.mark.parametrize(
    ("seconds", "nanos", "text"),
    [
        (0, 0, "1970-01-01T00:00:00Z"),
        (-62_135_596_800, 0, "0001-01-01T00:00:00Z"),
        (253_402_300_799, 999_999_999, "9999-12-31T23:59:59.999999999Z"),
        (1, 120_000_000, "1970-01-01T00:00:01.120Z"),
        (1, 1_000, "1970-01-01T00:00:01.000001Z"),
        (253_402_300_800, 0, None),
        (-62_135_596_801, 0, None),
        (0, -1, None),
        (0, 1_000_000_000, None),
    ],
)
def test_a_time_has_0_3_6_or_9_digits_or_is_none(
    seconds: int, nanos: int, text: str | None
) -> None:
    assert rfc3339(seconds, nanos) == text


def test_a_timestamp_that_rfc_3339_cannot_say_is_refused_with_its_reason() -> None:
    with pytest.raises(DecodeError) as caught:
        HEX.write(ChainCommit(timestamp=Timestamp(seconds=2**62)))
    assert caught.value.reason == "invalid-timestamp"
