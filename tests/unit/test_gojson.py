"""`core.gojson`: Go's JSON into the protobuf message that the node would have sent."""

import json
import time
from typing import Any

import pytest

from bridge.core import gojson
from bridge.core.decode import decode
from bridge.errors import DecodeError
from bridge.pb.eventmessages.factomEvents_pb2 import FactomEvent
from tests.support.events import recorded_payloads, small_capture
from tests.support.go import go_json


def of(tree: Any) -> FactomEvent:
    return gojson.parse(json.dumps(tree).encode())


def member(name: str, content: Any) -> dict[str, Any]:
    return {"Event": {name: content}}


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_the_recorded_json_of_every_field_gives_the_recorded_protobuf(transport: str) -> None:
    as_json = small_capture(f"allfields-{transport}-json").payloads()
    as_protobuf = small_capture(f"allfields-{transport}-protobuf").payloads()
    assert len(as_json) == len(as_protobuf) == 14
    for one, other in zip(as_json, as_protobuf, strict=True):
        if one != b'{"Event":{}}':  # Go's encoding of a wrapper around nothing
            assert gojson.parse(one) == FactomEvent.FromString(other)
        assert decode(one) == decode(other)


def test_what_go_would_write_of_each_recorded_event_gives_that_event() -> None:
    events = [FactomEvent.FromString(p) for p in recorded_payloads() if not p.startswith(b"{")]
    assert len(events) > 500
    for event in events:
        assert gojson.parse(go_json(event)) == event


def test_the_writer_of_the_tests_writes_what_a_node_wrote() -> None:
    recorded = [p for p in small_capture("tcp-json-once").payloads() if b"BlockCommit" not in p]
    assert len(recorded) > 300
    assert [go_json(gojson.parse(payload)) for payload in recorded] == recorded


@pytest.mark.parametrize(
    ("tree", "event"),
    [
        ({}, FactomEvent()),
        ({"Event": None}, FactomEvent()),
        ({"Event": {}}, FactomEvent()),
        ({"eventSource": -1}, FactomEvent(eventSource=-1)),  # type: ignore[arg-type]
        ({"eventSource": 77}, FactomEvent(eventSource=77)),  # type: ignore[arg-type]
        ({"fromTheFuture": [{"x": None}]}, FactomEvent()),
        (member("chainCommit", None), FactomEvent(chainCommit={})),
        (member("chainCommit", {"timestamp": {}}), FactomEvent(chainCommit={"timestamp": {}})),
        (
            member("nodeMessage", {"messageText": "<&> é\u2028\U0001f600"}),
            FactomEvent(nodeMessage={"messageText": "<&> é\u2028\U0001f600"}),
        ),
        (
            member("entryReveal", {"entry": {"externalIDs": [None, "", "AA=="]}}),
            FactomEvent(entryReveal={"entry": {"externalIDs": [b"", b"", b"\0"]}}),
        ),
        (
            member("processListEvent", {"ProcessListEvent": {"newBlockEvent": None}}),
            FactomEvent(processListEvent={"newBlockEvent": {}}),
        ),
    ],
)
def test_forms_of_go_are_read(tree: Any, event: FactomEvent) -> None:
    assert of(tree) == event


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not readable as JSON"),
        ("{", "not readable as JSON"),
        ("{} {}", "not readable as JSON"),
        ("[]", "event: expected an object"),
        ("null", "event: expected an object"),
        ("{'a':1}", "not readable as JSON"),
        ('{"Event":1}', "expected null or an object"),
        ('{"Event":[]}', "expected null or an object"),
        ('{"Event":{"chainCommit":{},"entryCommit":{}}}', "with one member"),
        ('{"Event":{"chainCommit":[]}}', "chainCommit: expected an object"),
        ('{"eventSource":1,"eventSource":1}', "'eventSource' stands twice"),
        ('{"x":{"y":1,"y":2}}', "'y' stands twice"),
        ('{"eventSource":"LIVE"}', "eventSource: expected an integer"),
        ('{"eventSource":true}', "eventSource: expected an integer"),
        ('{"eventSource":1.0}', "1.0 is no integer"),
        ('{"eventSource":1e3}', "1e3 is no integer"),
        ('{"x":NaN}', "NaN is no integer"),
        ('{"x":-Infinity}', "is no integer"),
        ('{"eventSource":2147483648}', "does not fit"),
        ('{"x":123456789012345678901}', "more than 64 bits"),
        ('{"identityChainID":"AA"}', "not standard base64"),
        ('{"identityChainID":"AA==="}', "not standard base64"),
        ('{"identityChainID":"A A="}', "not standard base64"),
        ('{"identityChainID":"_-8="}', "not standard base64"),
        ('{"identityChainID":"AAA=\\n"}', "not standard base64"),
        ('{"identityChainID":"\\u00e9"}', "not standard base64"),
        ('{"identityChainID":[1]}', "identityChainID: expected a string"),
        ('{"factomNodeName":1}', "factomNodeName: expected a string"),
        ('{"factomNodeName":"\\ud800"}', "does not fit"),
        ('{"Event":{"chainCommit":{"credits":-1}}}', "does not fit"),
        ('{"Event":{"chainCommit":{"credits":4294967296}}}', "does not fit"),
        ('{"Event":{"directoryBlockCommit":{"entryBlocks":{}}}}', "expected a list"),
        ('{"Event":{"directoryBlockCommit":{"entryBlocks":[1]}}}', "expected an object"),
        ('{"Event":{"directoryBlockAnchor":{"btcConfirmed":1}}}', "expected true or false"),
        ('{"x":' + "[" * 32 + "]" * 32 + "}", "nested deeper than 32"),
        ('{"x":' + "[" * 100_000, "nested deeper than 32"),
        ('{"x":' * 100_000, "nested deeper than 32"),
    ],
    ids=lambda text: repr(text[:50]),
)
def test_anything_else_is_refused_with_its_place(text: str, says: str) -> None:
    with pytest.raises(DecodeError, match=says) as caught:
        gojson.parse(text.encode())
    assert caught.value.reason == "invalid-json"


def test_invalid_utf8_is_refused() -> None:
    with pytest.raises(DecodeError) as caught:
        gojson.parse(b'{"factomNodeName":"\xff"}')
    assert caught.value.reason == "invalid-json"


def test_a_member_of_a_newer_node_is_an_unknown_event() -> None:
    for tree in (member("identityUpdate", {"x": 1}), member("identityUpdate", None)):
        with pytest.raises(DecodeError, match="identityUpdate") as caught:
            of(tree)
        assert caught.value.reason == "unknown-event"


def test_brackets_within_strings_are_no_depth() -> None:
    assert of({"factomNodeName": '[{"' * 50}).factomNodeName == '[{"' * 50
    assert of({"x": [[]] * 100, "eventSource": 1}).eventSource == 1


def test_a_string_without_end_is_refused_in_time_proportional_to_its_size() -> None:
    payload = b"{" + b"[]" * 40 + b'"' + b'\\"' * 20_000
    started = time.perf_counter()
    with pytest.raises(DecodeError):
        gojson.parse(payload)
    assert time.perf_counter() - started < 0.5
