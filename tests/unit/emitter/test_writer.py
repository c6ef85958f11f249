"""`emitter.gojson`: Go's JSON, byte for byte."""

import pytest

from bridge.core import gojson as reader
from bridge.emitter import gojson
from bridge.pb.eventmessages.factomEvents_pb2 import FactomEvent
from tests.support.events import captures_found, small_capture

NIL_MEMBER = b'{"Event":{}}'
JSON = [name for name, _ in captures_found() if name.endswith(("-json", "-json-once"))]


@pytest.mark.parametrize("name", JSON)
def test_every_recorded_json_is_written_again_byte_for_byte(name: str) -> None:
    payloads = small_capture(name).payloads()
    assert len(payloads) in {14, 346}
    written = [gojson.dumps(reader.parse(payload)) for payload in payloads]
    # A member that is nil is nothing in protobuf, and so written as none.
    assert written == [p if p != NIL_MEMBER else b'{"Event":null}' for p in payloads]
    assert payloads.count(NIL_MEMBER) == (1 if name.startswith("allfields") else 0)


def test_the_json_recordings_are_there() -> None:
    assert {"allfields-tcp-json", "allfields-udp-json", "tcp-json-once"} == set(JSON)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_the_recorded_protobuf_of_every_field_gives_the_recorded_json(transport: str) -> None:
    as_json = small_capture(f"allfields-{transport}-json").payloads()
    as_protobuf = small_capture(f"allfields-{transport}-protobuf").payloads()
    for expected, payload in zip(as_json, as_protobuf, strict=True):
        if expected != NIL_MEMBER:
            assert gojson.dumps(FactomEvent.FromString(payload)) == expected


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("", b'""'),
        ("plain / é \U0001f600 \x7f", '"plain / é \U0001f600 \x7f"'.encode()),
        ("<&>", rb'"\u003c\u0026\u003e"'),
        ("\u2027\u2028\u2029\u202a", '"\u2027\\u2028\\u2029\u202a"'.encode()),
        ('"\\', rb'"\"\\"'),
        ("\n\r\t", rb'"\n\r\t"'),
        ("\0\b\f\x1f", rb'"\u0000\u0008\u000c\u001f"'),
        (b"\xff", rb'"\ufffd"'),
        (b"a\xe2\x80b", rb'"a\ufffd\ufffdb"'),
        (b"\xed\xa0\x80", rb'"\ufffd\ufffd\ufffd"'),
        (b"\xf5\xc3\xa9\xc3", '"\\ufffdé\\ufffd"'.encode()),
        ("\ufffd", '"\ufffd"'.encode()),
        ("\ud800", rb'"\ufffd"'),
    ],
)
def test_strings_are_escaped_as_go_does(text: str | bytes, written: bytes) -> None:
    assert gojson.quote(text) == written


@pytest.mark.parametrize(
    ("event", "written"),
    [
        (FactomEvent(), b'{"Event":null}'),
        (FactomEvent(factomNodeName="n"), b'{"factomNodeName":"n","Event":null}'),
        (FactomEvent(chainCommit={}), b'{"Event":{"chainCommit":{}}}'),
        (
            FactomEvent(processListEvent={}),
            b'{"Event":{"processListEvent":{"ProcessListEvent":null}}}',
        ),
        (
            FactomEvent(chainCommit={"timestamp": {}}),
            b'{"Event":{"chainCommit":{"timestamp":{}}}}',
        ),
        (
            FactomEvent(chainCommit={"timestamp": {"seconds": -(2**63), "nanos": -1}}),
            b'{"Event":{"chainCommit":{"timestamp":{"seconds":-9223372036854775808,"nanos":-1}}}}',
        ),
        (
            FactomEvent(directoryBlockCommit={"factoidBlock": {"exchangeRate": 2**64 - 1}}),
            (
                b'{"Event":{"directoryBlockCommit":{"factoidBlock":'
                b'{"exchangeRate":18446744073709551615}}}}'
            ),
        ),
        (
            FactomEvent(directoryBlockCommit={"adminBlock": {"entries": [{"adminIdType": 3}]}}),
            (
                b'{"Event":{"directoryBlockCommit":{"adminBlock":'
                b'{"entries":[{"AdminBlockEntry":null,"adminIdType":3}]}}}}'
            ),
        ),
        (
            FactomEvent(entryReveal={"entry": {"externalIDs": [b"", b"\xfb\xff"]}}),
            b'{"Event":{"entryReveal":{"entry":{"externalIDs":["","+/8="]}}}}',
        ),
        (
            FactomEvent(directoryBlockAnchor={"btcConfirmed": True}),
            b'{"Event":{"directoryBlockAnchor":{"btcConfirmed":true}}}',
        ),
    ],
)
def test_levels_zeros_and_numbers_are_written_as_go_does(
    event: FactomEvent, written: bytes
) -> None:
    assert gojson.dumps(event) == written
