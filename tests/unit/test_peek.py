"""`core.peek`: the height of a directory block, cheaply."""

import pytest

from bridge.core.decode import decode
from bridge.core.peek import block_height
from bridge.errors import DecodeError
from bridge.model import Kind
from bridge.pb.eventmessages.factomEvents_pb2 import FactomEvent
from tests.support.events import recorded_payloads
from tests.support.go import go_json


def by_decoding(payload: bytes) -> tuple[int, bool] | None:
    try:
        event = decode(payload)
    except DecodeError:
        return None
    if event is None or event.kind is not Kind.DIRECTORY_BLOCK_COMMIT:
        return None
    return event.member.directoryBlock.header.blockHeight, event.source == 1


def test_it_tells_of_every_recorded_event_what_decoding_tells() -> None:
    heights = []
    for payload in recorded_payloads():
        found = block_height(payload)
        assert found == by_decoding(payload)
        heights += [found] if found else []
    assert len(heights) > 20
    assert {replayed for _, replayed in heights} == {True, False}


BLOCK = {"directoryBlock": {"header": {"blockHeight": 9}}}
ENVELOPES = [
    {},
    {"eventSource": 1},
    {"eventSource": -1},
    {"eventSource": 300},
    {"factomNodeName": "node"},
    {"factomNodeName": "n" * 200},
    {"identityChainID": b"i" * 32},
    {"eventSource": 1, "factomNodeName": "node", "identityChainID": b"i" * 32},
    {"identityChainID": b"short"},
    {"identityChainID": b"long" * 40},
]


@pytest.mark.parametrize("envelope", ENVELOPES)
@pytest.mark.parametrize(
    "member", [{"directoryBlockCommit": BLOCK}, {"entryReveal": {"entry": {"content": b"B"}}}, {}]
)
def test_it_sees_through_every_envelope(
    envelope: dict[str, object], member: dict[str, object]
) -> None:
    event = FactomEvent(**envelope, **member)  # type: ignore[arg-type]
    for payload in (event.SerializeToString(), go_json(event)):
        assert block_height(payload) == by_decoding(payload)
        assert (block_height(payload) is not None) == ("directoryBlockCommit" in member)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x08",
        b"\x08\xff",
        b"\x12",
        b"\x12\x05ab",
        b"\x1a",
        b"\x1a\x20short",
        b"\x42\xff",
        b"{",
        b'{"directoryBlockCommit":1}',
        b'{"Event":{"directoryBlockCommit":[]}}',
    ],
)
def test_what_is_no_event_has_no_height(payload: bytes) -> None:
    assert block_height(payload) is None
