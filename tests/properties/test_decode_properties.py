"""Decoding, whatever the bytes: an event, nothing, or a `DecodeError`."""

import json

from hypothesis import given, settings, strategies as st

from bridge.core.decode import decode
from bridge.core.framing import frame
from bridge.core.peek import Block, peek
from bridge.core.render import Format, Renderer
from bridge.core.routing import ChainFilter, Routes
from bridge.errors import DecodeError
from bridge.model import Group, Kind, Run
from bridge.pb.eventmessages.factomEvents_pb2 import FactomEvent
from tests.support.events import SMALL, small_capture, some_events
from tests.support.go import go_json

REASONS = {"invalid-json", "invalid-protobuf", "unknown-event", "too-many-parts", "too-costly"}
RECORDED = sorted(
    {payload for name in SMALL for payload in small_capture(name).payloads() if payload}
)
ENCODINGS: tuple[Format, ...] = ("json", "protobuf")
ROUTES = Routes("factom", {}, ())
RENDERERS = [
    Renderer(network="n", epoch="e", routes=ROUTES, chains=ChainFilter(), format=encoding)
    for encoding in ENCODINGS
]

tokens = st.sampled_from(
    [b"{", b"}", b"[", b"]", b'"', b"\\", b"\\ud800", b"null", b"1e9", b"-", b"\xed\xa0\x80", b"\0"]
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A recorded payload with a few of its bytes changed, lost, doubled or put in."""
    payload = draw(st.sampled_from(RECORDED))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(payload)))
        until = min(len(payload), at + draw(st.integers(0, 12)))
        new = draw(st.one_of(st.binary(max_size=4), tokens, st.just(payload[at:until] * 2)))
        payload = payload[:at] + new + payload[until:]
    return payload


def hold_to_the_promise(payload: bytes) -> None:
    try:
        event = decode(payload)
    except DecodeError as error:
        assert error.reason in REASONS
        assert str(error)
        event = None
    else:
        assert event is None or isinstance(event.kind, Kind)
    if event is not None and event.kind is Kind.DIRECTORY_BLOCK_COMMIT:
        # What is passed over here is no envelope that a node writes: see test_peek.
        assert peek(payload) in (None, Block(event.member, event.source))
    else:
        assert not isinstance(peek(payload), Block)
    group = Group(1, 1, (Run("tcp/1", 5, 1, frame(payload)),))
    for renderer in RENDERERS:
        rendered = renderer.render(group)
        assert len(rendered.messages) + rendered.left_out.total() == 1


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=100), st.binary(max_size=100).map(lambda noise: b"{" + noise)))
def test_noise_is_an_event_or_a_decode_error_and_nothing_else(noise: bytes) -> None:
    hold_to_the_promise(noise)


@settings(max_examples=1000)
@given(mutated())
def test_damaged_events_are_events_or_decode_errors_and_nothing_else(payload: bytes) -> None:
    hold_to_the_promise(payload)


names = st.sampled_from(
    [*(field.name for field in FactomEvent.DESCRIPTOR.fields), "entry", "timestamp", "seconds"]
)
leaves = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=5)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(names | st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)


@settings(max_examples=200)
@given(trees)
def test_any_tree_of_json_is_an_event_or_a_decode_error(tree: object) -> None:
    hold_to_the_promise(json.dumps({"Event": tree}).encode())


@settings(max_examples=200)
@given(some_events())
def test_an_event_has_the_same_canonical_bytes_as_json_and_as_protobuf(event: FactomEvent) -> None:
    payload = event.SerializeToString()
    as_protobuf, as_json = decode(payload), decode(go_json(event))
    assert as_protobuf == as_json
    if as_protobuf is not None:
        assert as_protobuf.data == getattr(event, str(event.WhichOneof("event"))).SerializeToString(
            deterministic=True
        )
        assert as_protobuf.identity == event.identityChainID
