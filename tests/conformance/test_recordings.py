"""Every recorded feed, over its own transport, into both brokers, read back by plain consumers."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
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
from tests.support.captures import CAPTURES, Capture, find_capture
from tests.support.consumers import Read

pytestmark = pytest.mark.brokers

_OWN = {"gap-alert", "dead-letter"}

GAPS = {"gap-long": (4, 25), "gap-api": (4, 26), "gap-api-replay": (4, 31)}
"""The gap that each recording has, at its last block; the others have none."""


@pytest.mark.parametrize("name", CAPTURES)
async def test_a_recorded_feed_arrives_whole_and_in_order(
    name: str, tmp_path: Path, kafka: KafkaBroker, nats_server: NatsBroker
) -> None:
    capture = find_capture(name)
    if capture is None:
        pytest.skip(f"LOUD: the recording {name} is not on this machine (shared/captures)")

    published = await replayed(capture, tmp_path / "bridge", kafka, nats_server)

    events = [event for event in capture.events() if event["which"] is not None]
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


def _feed(messages: Iterable[Read]) -> list[Read]:
    return [message for message in messages if message.kind not in _OWN]


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
    for payload in capture.payloads():
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
    assert [message.place.rpartition(".")[2] for message in found] == (
        ["opened"] if name in GAPS else []
    )
    if name in GAPS:
        first, last = GAPS[name]
        assert found[0].attributes["subject"] == f"main-{first}-{last}"


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
        ]

    first = found[_ALLFIELDS[0]]
    # 14 events: two have no member set, and of a third the member is nil, which neither JSON
    # ({"Event":{}}) nor protobuf (no bytes at all) can carry.
    assert len(first) == 11
    assert all(others == first for others in found.values())
