"""Every recorded feed, over its own transport, into both brokers, read back by plain consumers."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from jsonschema import Draft202012Validator

from bridge.core.asyncapi import document
from bridge.core.routing import Routes
from bridge.pb.eventmessages.factomEvents_pb2 import FactomEvent
from tests.brokers.kafka import KafkaBroker
from tests.brokers.nats import NatsBroker
from tests.conformance.replaying import KINDS, Published, replayed
from tests.support.captures import CAPTURES, Capture, find_capture, not_here
from tests.support.consumers import Read

pytestmark = pytest.mark.brokers

_OWN = {"gap-alert", "block-receipt", "dead-letter"}
_RECOVERABLE = {"chain-commit", "entry-commit", "entry-reveal"}

GAPS = {"gap-long": (4, 25), "gap-api": (4, 26), "gap-api-replay": (31, 31)}
"""The gap that stays in each recording when it is played at once; the others have none."""


@pytest.mark.parametrize("name", CAPTURES)
async def test_a_recorded_feed_arrives_whole_and_in_order(
    name: str, tmp_path: Path, kafka: KafkaBroker, nats_server: NatsBroker
) -> None:
    capture = find_capture(name)
    if capture is None:
        not_here(name)

    published = await replayed(capture, tmp_path / "bridge", kafka, nats_server, name in GAPS)

    events = [event for event, _ in _events(capture)]
    topics = {topic: _feed(messages) for topic, messages in published.topics.items()}
    assert _counts(topics) == Counter(KINDS[event["which"]] for event in events)
    _assert_order_in_topics(topics, events)
    _assert_stream_is_the_feed_without_repeats(_feed(published.stream), topics)
    if not capture.events()[0].get("json", False) and "json" not in name:
        _assert_ids_are_hashes_of_the_nodes_own_bytes(capture, topics)
    _assert_valid(published)
    _assert_as_described(published)
    _assert_gap_alerts(name, published)
    assert not [read for read in published.stream if read.kind == "dead-letter"]


def _events(capture: Capture) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Yield what is to be published, with its payload: a block that came before is not."""
    blocks: set[str] = set()
    for event, payload in zip(capture.events(), capture.payloads(), strict=True):
        if event["which"] == "directoryBlockCommit":
            block = _block(payload)
            if block in blocks:
                continue
            blocks.add(block)
        if event["which"] is not None:
            yield event, payload


def _block(payload: bytes) -> str:
    if payload.startswith(b"{"):
        return json.dumps(json.loads(payload)["Event"])
    return FactomEvent.FromString(payload).directoryBlockCommit.SerializeToString().hex()


def _feed(messages: Iterable[Read]) -> list[Read]:
    """Leave out what is the bridge's own, and what it recovered out of blocks."""
    return [m for m in messages if m.kind not in _OWN and not _is_recovered(m)]


def _is_recovered(message: Read) -> bool:
    attributes = message.attributes
    return (
        message.kind in _RECOVERABLE
        and attributes["entitystate"] == "COMMITTED_TO_DIRECTORY_BLOCK"
        and "nodeidentity" not in attributes
    )


def _counts(topics: dict[str, list[Read]]) -> Counter[str]:
    return Counter(message.kind for messages in topics.values() for message in messages)


def _told(which: str, event: dict[str, Any]) -> tuple[Any, ...]:
    """Return what the independent decoding knows of an event: its height, state, or words."""
    if which == "directoryBlockCommit":
        return (event["height"],)
    if which == "processListEvent":
        minute = event["minute"]
        return (
            minute.get("newBlockEvent", {}).get("newBlockHeight", 0)
            or minute.get("newMinuteEvent", {}).get("blockHeight", 0),
        )
    return (event.get("state", 0),) if "state" in event else ()


_STATES = ("REQUESTED", "ACCEPTED", "REJECTED", "COMMITTED_TO_DIRECTORY_BLOCK")


def _attributed(which: str, message: Read) -> tuple[Any, ...]:
    attributes = message.attributes
    if which in {"directoryBlockCommit", "processListEvent"}:
        return (int(attributes["blockheight"]),)
    if "entitystate" in attributes:
        return (_STATES.index(attributes["entitystate"]),)
    return ()


def _assert_order_in_topics(topics: dict[str, list[Read]], events: list[dict[str, Any]]) -> None:
    for which, kind in KINDS.items():
        found = next((m for t, m in topics.items() if t.endswith(f".{kind}")), [])
        sent = [_told(which, event) for event in events if event["which"] == which]
        assert [_attributed(which, message) for message in found] == sent, kind
        assert [message.seq for message in found] == sorted(message.seq for message in found)


def _assert_stream_is_the_feed_without_repeats(
    stream: list[Read], topics: dict[str, list[Read]]
) -> None:
    in_order = sorted((m for found in topics.values() for m in found), key=lambda m: m.seq)
    first = list(dict.fromkeys(message.id for message in in_order))
    assert [message.id for message in stream] == first
    data = {message.id: message.data for message in in_order}
    differing = [message for message in stream if data[message.id] != message.data]
    assert not differing, [(m.kind, m.seq, m.id, len(m.data), m.headers) for m in differing][:3]


def _assert_ids_are_hashes_of_the_nodes_own_bytes(
    capture: Capture, topics: dict[str, list[Read]]
) -> None:
    sent = []
    for _, payload in _events(capture):
        event = FactomEvent.FromString(payload)
        which = event.WhichOneof("event")
        if which not in {None, "nodeMessage"}:
            member = getattr(event, str(which)).SerializeToString()
            # The member stands in the payload as the node wrote it: nothing was parsed anew.
            assert payload.endswith(member)
            kind = KINDS[str(which)].encode()
            sent.append(hashlib.sha256(kind + b"\0" + member).hexdigest()[:32])
    found = sorted((m for each in topics.values() for m in each), key=lambda m: m.seq)
    assert [message.id for message in found if message.kind != "node-message"] == sent


def _assert_valid(published: Published) -> None:
    for messages in published.topics.values():
        for message in messages:
            headers = {name: value.encode() for name, value in message.headers.items()}
            event = from_binary(
                KafkaMessage(headers=headers, key=message.key, value=message.data), JSONFormat()
            )
            assert event.get_specversion() == "1.0"
            assert event.get_time() is not None
    for message in published.stream:
        attributes: dict[str, Any] = dict(message.attributes)
        attributes["time"] = datetime.fromisoformat(attributes["time"])
        event = CloudEvent(attributes, message.data)
        assert event.get_id() == message.headers["Nats-Msg-Id"]


def _assert_as_described(published: Published) -> None:
    """The AsyncAPI document is true of what was published."""
    described = document(Routes("factom", {}, ()), "0", "json", "hex")
    for message in published.stream:
        told = described["components"]["messages"][message.kind]
        root = described | {"$ref": "#/components/messages/" + message.kind}
        headers = Draft202012Validator({**root, "$ref": root["$ref"] + "/headers"})
        headers.validate(message.attributes)
        assert told["contentType"] == message.headers["ce-datacontenttype"]
        data = Draft202012Validator({**root, "$ref": root["$ref"] + "/payload"})
        data.validate(json.loads(message.data))


def _assert_gap_alerts(name: str, published: Published) -> None:
    found = [message for message in published.stream if message.kind == "gap-alert"]
    told = [json.loads(message.data) for message in found]
    of_gaps = [alert for alert in told if alert["type"] == "TYPE_GAP"]
    assert [alert["status"] for alert in of_gaps] == ["STATUS_OPENED"] * (name in GAPS)
    for alert in of_gaps:
        assert (alert["firstHeight"], alert["lastHeight"]) == GAPS[name]
    others = {alert["type"] for alert in told} - {"TYPE_GAP"}
    # Their blocks are made up, and hashes do not fit.
    assert others == ({"TYPE_UNVERIFIED"} if name in _ALLFIELDS else set())


_ALLFIELDS = [name for name in CAPTURES if name.startswith("allfields-")]


@pytest.mark.parametrize("format_", ["json", "protobuf"])
async def test_ids_and_data_are_the_same_by_every_transport_and_encoding(
    format_: str, tmp_path: Path, kafka: KafkaBroker, nats_server: NatsBroker
) -> None:
    found = {}
    for name in _ALLFIELDS:
        capture = find_capture(name)
        assert capture is not None
        published = await replayed(
            capture, tmp_path / name, kafka, nats_server, BRIDGE_FORMAT=format_
        )
        # A node message's id holds the time at which it was received.
        found[name] = [
            (m.kind, "" if m.kind == "node-message" else m.id, m.key, m.data)
            for m in published.stream
            if m.kind not in _OWN
        ]

    first = found[_ALLFIELDS[0]]
    # 14 events: two have no member set, and of a third the member is nil, which neither JSON
    # ({"Event":{}}) nor protobuf (no bytes at all) can carry.
    assert len(first) == 11
    assert all(others == first for others in found.values())
