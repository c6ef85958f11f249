"""`core.render`: records of the journal into messages."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from bridge.core.decode import decode
from bridge.core.framing import frame
from bridge.core.groups import framing_run, own_run
from bridge.core.render import LETTER_BYTES, MESSAGE_TYPES, Rendered, Renderer
from bridge.core.routing import ChainFilter, Routes
from bridge.model import Group, Kind, Message, Run
from bridge.pb.bridge.v1.dead_letter_pb2 import DeadLetter
from bridge.pb.bridge.v1.gap_alert_pb2 import GapAlert
from bridge.pb.eventmessages.factomEvents_pb2 import FactomEvent
from tests.support.events import small_capture
from tests.support.go import go_json

NOW_NS = 1_700_000_000_123_456_789
NODE = b"\xee" * 32
CHAIN, OTHER = b"\xcd" * 32, b"\x0f" * 32


def renderer(*, off: Iterable[Kind] = (), chains: Iterable[bytes] = (), **options: Any) -> Renderer:
    options = {"network": "test", "epoch": "e90c"} | options
    return Renderer(routes=Routes("factom", {}, off), chains=ChainFilter.of(chains), **options)


def group_of(*payloads: bytes, first: int = 1, at_ns: int = NOW_NS) -> Group:
    run = Run("tcp/3", at_ns, len(payloads), b"".join(map(frame, payloads)))
    return Group(first, first + len(payloads) - 1, (run,))


def payload_of(**fields: Any) -> bytes:
    return FactomEvent(**fields).SerializeToString()


def only(rendered: Rendered) -> Message:
    (message,) = rendered.messages
    return message


def seen(messages: Iterable[Message]) -> list[tuple[Any, ...]]:
    """What a consumer sees of `messages`."""
    return [(m.seq, m.kind, m.key, m.token, m.attributes, m.data) for m in messages]


def letter_of(message: Message) -> DeadLetter:
    """The dead letter that `message` is, where its renderer writes protobuf."""
    assert message.kind is Kind.DEAD_LETTER
    return DeadLetter.FromString(message.data)


REVEAL = payload_of(
    eventSource=1,
    identityChainID=NODE,
    entryReveal={
        "entityState": 1,
        "entry": {"chainID": CHAIN, "content": b"hello"},
        "timestamp": Timestamp(seconds=1_600_000_000, nanos=120_000),
    },
)
STARTED = payload_of(identityChainID=NODE, nodeMessage={"messageCode": 1, "messageText": "up"})


# Attributes, ids and data


def test_a_message_has_the_attributes_of_the_contract() -> None:
    message = only(renderer().render(group_of(REVEAL, first=42)))
    assert message.attributes == {
        "specversion": "1.0",
        "id": message.id,
        "source": "/factom/test",
        "type": "com.factom.livefeed.entry-reveal.v1",
        "datacontenttype": "application/json",
        "dataschema": "urn:factom-bridge:eventmessages.EntryReveal:v1",
        "subject": CHAIN.hex(),
        "time": "2020-09-13T12:26:40.120Z",
        "recordedtime": "2023-11-14T22:13:20.123456Z",
        "sequence": f"{42:020d}",
        "partitionkey": CHAIN.hex(),
        "origin": "replay",
        "nodeidentity": NODE.hex(),
        "entitystate": "ACCEPTED",
        "chainid": CHAIN.hex(),
    }
    assert (message.seq, message.key, message.token) == (42, CHAIN.hex(), CHAIN.hex())
    data = json.loads(message.data)
    assert data["entry"] == {"chainID": CHAIN.hex(), "content": b"hello".hex()}
    # The data keeps the node's quirk: a thousandth of the nanoseconds.
    assert data["timestamp"] == "2020-09-13T12:26:40.000120Z"


def test_the_id_is_the_hash_of_the_kind_and_the_canonical_bytes() -> None:
    for payload in small_capture("allfields-tcp-protobuf").payloads():
        event = decode(payload)
        if event is None or event.kind is Kind.NODE_MESSAGE:
            continue
        hashed = hashlib.sha256(event.kind.encode() + b"\0" + event.data).hexdigest()
        assert only(renderer().render(group_of(payload))).id == hashed[:32]


@pytest.mark.parametrize("options", [{"format": "protobuf"}, {"json_bytes": "base64"}, {}])
def test_json_and_protobuf_feeds_give_the_same_messages(options: dict[str, Any]) -> None:
    render = renderer(**options).render
    one = small_capture("allfields-tcp-protobuf").payloads()
    other = small_capture("allfields-udp-json").payloads()
    messages = render(group_of(*one)).messages
    assert len(messages) == 11
    assert seen(messages) == seen(render(group_of(*other)).messages)


def test_the_id_does_not_depend_on_node_origin_time_number_or_format() -> None:
    event = FactomEvent.FromString(REVEAL)
    event.eventSource, event.identityChainID = 0, b"another node"  # type: ignore[assignment]
    other = event.SerializeToString()
    ids = {
        only(renderer(format=encoding).render(group_of(payload, first=first, at_ns=at_ns))).id
        for encoding in ("json", "protobuf")
        for payload, first, at_ns in [(REVEAL, 1, 5), (other, 99, NOW_NS), (go_json(event), 1, 1)]
    }
    assert len(ids) == 1


def test_messages_that_differ_have_different_ids() -> None:
    payloads = dict.fromkeys(small_capture("tcp-protobuf-once").payloads())
    messages = renderer().render(group_of(*payloads)).messages
    members = {(m.kind, m.data) for m in messages}
    assert len({m.id for m in messages}) == len(members) > 200


def test_protobuf_data_is_the_members_own_bytes() -> None:
    message = only(renderer(format="protobuf").render(group_of(REVEAL)))
    assert message.data == FactomEvent.FromString(REVEAL).entryReveal.SerializeToString()
    assert message.attributes["datacontenttype"] == "application/protobuf"


def test_every_recorded_event_is_one_message_and_in_order() -> None:
    payloads = small_capture("replay-from-height").payloads()
    rendered = renderer().render(group_of(*payloads, first=1000))
    expected = [
        (1000 + place, event.kind)
        for place, event in enumerate(map(decode, payloads))
        if event is not None
    ]
    assert [(m.seq, m.kind) for m in rendered.messages] == expected
    assert rendered.left_out == {"empty": len(payloads) - len(expected)}
    assert (rendered.first, rendered.last) == (1000, 999 + len(payloads))


@pytest.mark.parametrize(
    ("source", "origin"), [(0, "live"), (1, "replay"), (-1, "live"), (2, None)]
)
def test_the_origin_is_told_where_it_is_known(source: int, origin: str | None) -> None:
    payload = payload_of(eventSource=source, stateChange={})
    message = only(renderer().render(group_of(payload)))
    assert message.attributes.get("origin") == origin
    assert "nodeidentity" not in message.attributes


@pytest.mark.parametrize(
    ("nanos", "time"),
    [(0, "40Z"), (999_000, "40.999Z"), (1_000, "40.001Z"), (120_000_000, "40.120Z")],
)
def test_the_nodes_nanoseconds_are_corrected_in_the_time_of_reveals(nanos: int, time: str) -> None:
    at = Timestamp(seconds=1_600_000_000, nanos=nanos)
    message = only(renderer().render(group_of(payload_of(entryReveal={"timestamp": at}))))
    assert message.attributes["time"] == "2020-09-13T12:26:" + time
    commit = only(renderer().render(group_of(payload_of(entryCommit={"timestamp": at}))))
    assert commit.attributes["time"] == at.ToJsonString()


def test_an_event_without_a_time_has_that_of_its_receipt() -> None:
    message = only(renderer().render(group_of(payload_of(stateChange={}))))
    assert message.attributes["time"] == message.attributes["recordedtime"]


def test_blocks_and_minutes_have_no_key() -> None:
    fields: dict[str, Any]
    for fields in ({"directoryBlockCommit": {}}, {"processListEvent": {"newBlockEvent": {}}}):
        message = only(renderer().render(group_of(payload_of(**fields))))
        assert message.key is None
        assert "partitionkey" not in message.attributes


def test_a_node_messages_id_tells_its_node_and_when_it_came() -> None:
    render = renderer().render
    message = only(render(group_of(STARTED, first=5)))
    assert message.id == only(render(group_of(STARTED, first=6))).id
    assert message.id != only(render(group_of(STARTED, at_ns=NOW_NS + 1))).id
    other = STARTED.replace(NODE, OTHER)
    assert message.id != only(render(group_of(other))).id
    assert (message.key, message.attributes["subject"]) == (NODE.hex(), NODE.hex())


@pytest.mark.parametrize("fields", [{"nodeMessage": {}}, {"entryReveal": {}}, {"chainCommit": {}}])
def test_a_message_without_a_subject_has_no_empty_attribute(fields: dict[str, Any]) -> None:
    message = only(renderer().render(group_of(payload_of(**fields))))
    assert message.key is None
    assert message.attributes.keys().isdisjoint({"subject", "partitionkey", "nodeidentity"})


def test_forged_identities_take_no_memory() -> None:
    rendering = renderer()
    for number in range(100):
        identity = b"%d" % number + bytes(10_000)
        rendering.render(group_of(payload_of(identityChainID=identity, stateChange={})))
    assert sum(len(identity) for _, identity in rendering._origins) < 10_000


def test_messages_of_one_node_and_kind_share_their_layout() -> None:
    rendering = renderer()
    one, two = rendering.render(group_of(REVEAL, REVEAL)).messages
    assert one.layout is two.layout is only(rendering.render(group_of(REVEAL))).layout
    assert one.layout is not only(rendering.render(group_of(STARTED))).layout


def test_every_message_has_a_value_for_each_attribute_of_its_layout() -> None:
    payloads = [*small_capture("allfields-tcp-protobuf").payloads(), b"\xff"]
    for message in renderer().render(group_of(*payloads)).messages:
        assert len(message.layout.names) == len(message.values)
        assert all(message.attributes.values())


# What is left out


@pytest.mark.parametrize(
    ("options", "payloads", "seqs", "left_out"),
    [
        ({}, [b"", REVEAL, b'{"Event":null}'], [2], {"empty": 2}),
        ({"off": [Kind.ENTRY_REVEAL]}, [REVEAL, STARTED], [2], {"switched-off": 1}),
        ({"chains": [OTHER]}, [REVEAL, STARTED], [2], {"other-chain": 1}),
        ({"chains": [OTHER, CHAIN]}, [REVEAL, STARTED], [1, 2], {}),
    ],
)
def test_what_is_left_out_is_counted_by_reason(
    options: dict[str, Any], payloads: list[bytes], seqs: list[int], left_out: dict[str, int]
) -> None:
    rendered = renderer(**options).render(group_of(*payloads))
    assert [message.seq for message in rendered.messages] == seqs
    assert rendered.left_out == Counter(left_out)


# Dead letters

LATE = payload_of(chainCommit={"timestamp": Timestamp(seconds=2**62)})


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"\xff\xff", "invalid-protobuf"),
        (b'{"Event"', "invalid-json"),
        (b'{"a":1,"a":2}', "invalid-json"),
        (b'{"Event":{"new":{}}}', "unknown-event"),
        (b'{"Event":{"\\ud800":{}}}', "unknown-event"),
        (b"\x62\x01x", "unknown-event"),
        (b'{"Event":{"directoryBlockCommit":{"e":[' + b"{}," * 100_001 + b"]}}}", "too-many-parts"),
    ],
    ids=lambda value: repr(value[:40]),
)
def test_what_cannot_be_decoded_is_a_dead_letter_in_its_place(payload: bytes, reason: str) -> None:
    rendered = renderer(format="protobuf").render(group_of(STARTED, payload, STARTED, first=7))
    assert [m.seq for m in rendered.messages] == [7, 8, 9]
    message = rendered.messages[1]
    letter = letter_of(message)
    small = len(payload) <= LETTER_BYTES
    assert (letter.reason, letter.seq, letter.peer) == (reason, 8, "tcp")
    assert letter.payload == (payload if small else b"")
    assert letter.payload_size == len(payload)
    assert letter.payload_sha256 == hashlib.sha256(payload).digest()
    assert letter.payload_reference == ("" if small else "journal:e90c/8")
    assert letter.received_at.ToNanoseconds() == NOW_NS
    assert letter.sentence
    assert (message.key, message.token, message.attributes["subject"]) == (reason, reason, reason)


def test_a_time_that_json_cannot_say_is_a_dead_letter_only_where_json_is_written() -> None:
    message = only(renderer().render(group_of(LATE)))
    letter = json.loads(message.data)
    assert (letter["reason"], letter["payload"]) == ("invalid-timestamp", LATE.hex())
    message = only(renderer(format="protobuf").render(group_of(LATE)))
    assert message.kind is Kind.CHAIN_COMMIT
    assert message.attributes["time"] == message.attributes["recordedtime"]


def test_a_payload_too_large_for_a_letter_is_referred_to() -> None:
    largest, larger = b"\xff" * LETTER_BYTES, b"\xff" * (LETTER_BYTES + 1)
    rendered = renderer(format="protobuf").render(group_of(largest, larger, first=3))
    whole, referred = map(letter_of, rendered.messages)
    assert (whole.payload, whole.payload_reference) == (largest, "")
    assert (referred.payload, referred.payload_reference) == (b"", "journal:e90c/4")
    assert referred.payload_size == len(larger)


def test_bytes_that_were_no_frame_are_a_dead_letter_with_the_sample() -> None:
    run = framing_run("udp/9", "datagram-stray", b"GET /\0", NOW_NS)
    letter = letter_of(only(renderer(format="protobuf").render(Group(4, 4, (run,)))))
    assert (letter.reason, letter.peer, letter.payload) == ("datagram-stray", "udp", b"GET /\0")


def test_the_same_bad_bytes_at_another_time_are_another_dead_letter() -> None:
    render = renderer().render
    bad = [group_of(b"\xff"), group_of(b"\xff", first=9), group_of(b"\xff", at_ns=1)]
    same, again, later = (only(render(group)).id for group in [*bad[:2], bad[2]])
    assert same == again != later


def test_a_damaged_group_is_one_dead_letter_that_names_its_records() -> None:
    rendered = renderer(format="protobuf").render(Group(10, 19, (), "the checksum does not match"))
    letter = letter_of(only(rendered))
    assert (letter.reason, letter.seq) == ("journal-damaged", 10)
    assert letter.sentence == "records 10 to 19: the checksum does not match"
    assert (rendered.first, rendered.last) == (10, 19)


def test_two_damaged_groups_are_two_dead_letters_with_ids_of_their_own() -> None:
    render = renderer().render
    one, other = (only(render(Group(first, first + 9, (), "damaged"))) for first in (10, 20))
    assert one.id != other.id


def test_a_refused_message_is_replaced_by_a_dead_letter_of_the_same_number() -> None:
    rendering = renderer(format="protobuf")
    message = only(rendering.render(group_of(REVEAL, first=77)))
    replaced = rendering.refused(message, "kafka", "too bad " * 1000)
    letter = letter_of(replaced)
    assert (replaced.seq, letter.seq, letter.reason) == (77, 77, "refused")
    assert (letter.kind, letter.sink) == ("entry-reveal", "kafka")
    assert letter.sink_error.startswith("too bad") and len(letter.sink_error) == 1000
    assert letter.payload_sha256 == hashlib.sha256(message.data).digest()
    assert letter.payload_reference == "journal:e90c/77"
    assert replaced.id == rendering.refused(message, "kafka", "other words").id != message.id


# The bridge's own


def test_an_alert_of_the_journal_is_published_with_its_status_as_token() -> None:
    alert = GapAlert(gap_id="test-4-25", status=GapAlert.STATUS_OPENED)
    group = Group(8, 8, (own_run(Kind.GAP_ALERT, alert.SerializeToString(), NOW_NS),))
    message = only(renderer(format="protobuf").render(group))
    assert GapAlert.FromString(message.data) == alert
    assert (message.kind, message.key, message.token) == (Kind.GAP_ALERT, "test-4-25", "opened")
    assert message.attributes["dataschema"] == "urn:factom-bridge:bridge.v1.GapAlert:v1"
    assert "origin" not in message.attributes
    silent = renderer(off=[Kind.GAP_ALERT]).render(group)
    assert (silent.messages, silent.left_out) == ([], Counter({"switched-off": 1}))


def test_every_kind_has_a_message_type() -> None:
    assert MESSAGE_TYPES.keys() == set(Kind)
