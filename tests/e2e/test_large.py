"""A 20 MB event among small ones: they arrive in order, it is set aside and found, nothing stalls."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bridge.pb.eventmessages.factomEvents_pb2 import FactomEvent
from tests.brokers.kafka import KafkaBroker
from tests.brokers.nats import NatsBroker
from tests.support.bridge_process import BridgeProcess, Metrics
from tests.support.consumers import (
    Read,
    fetch_from_kafka,
    fetch_from_nats,
    read_stream,
    read_topics,
)
from tests.support.journal_file import event_id
from tests.support.maker import Maker

pytestmark = pytest.mark.brokers

_LARGE_BYTES = 20_000_000
_SMALL = 200
_SECONDS = 60


def _feed() -> tuple[list[bytes], bytes]:
    """Return the payloads to be sent, and the large one among them."""
    maker = Maker(20)
    before = [maker.reveal(600) for _ in range(_SMALL)]
    large = maker.reveal(_LARGE_BYTES)
    after = [maker.reveal(600) for _ in range(_SMALL)]
    return [frame[5:] for frame in (*before, large, *after)], large[5:]


async def _bridge(folder: Path, environ: dict[str, str], payloads: list[bytes]) -> Metrics:
    """Send `payloads` through a bridge, whole, and end it; return its last metrics."""
    with BridgeProcess(folder, environ) as bridge:
        return await _send(bridge, payloads)


async def _send(bridge: BridgeProcess, payloads: list[bytes]) -> Metrics:
    _, writer = await asyncio.open_connection("127.0.0.1", bridge.feed_port)
    for payload in payloads:
        writer.write(b"\1" + len(payload).to_bytes(4, "little") + payload)
        await asyncio.wait_for(writer.drain(), _SECONDS)
    writer.close()
    await writer.wait_closed()
    metrics = await bridge.delivered(len(payloads), _SECONDS)
    assert bridge.ready()["ready"]
    return metrics


def _check_order(read: list[Read], payloads: list[bytes]) -> None:
    assert [message.id for message in read] == [event_id(payload)[1] for payload in payloads]


def _check_claim(message: Read, body: bytes, large: bytes) -> None:
    """Hold the claim check and what it leads to against the event."""
    told = message.attributes
    assert message.data == b""
    assert told["datasize"] == str(len(body))
    assert told["datasha256"] == hashlib.sha256(body).hexdigest()
    member = FactomEvent.FromString(large).entryReveal
    assert told["chainid"] == member.entry.chainID.hex()
    if (told.get("datacontenttype") or message.headers["content-type"]) == "application/protobuf":
        assert body == member.SerializeToString(deterministic=True)
    else:
        assert json.loads(body)["entry"]["content"] == member.entry.content.hex()


def _check_small(read: list[Read], payloads: list[bytes]) -> None:
    """The others hold their data themselves."""
    for message, payload in zip(read, payloads, strict=True):
        if len(payload) < _LARGE_BYTES:
            assert "dataref" not in message.attributes
            content = FactomEvent.FromString(payload).entryReveal.entry.content
            assert content.hex().encode() in message.data or content in message.data


async def test_in_the_embedded_server_it_is_an_object_of_the_object_store(tmp_path: Path) -> None:
    payloads, large = _feed()
    with BridgeProcess(tmp_path) as bridge:
        metrics = await _send(bridge, payloads)
        url = f"nats://127.0.0.1:{bridge.nats_port}"
        read = await read_stream(url)
        claim = read[_SMALL]
        body = await fetch_from_nats(url, claim.attributes["dataref"])
        bridge.stop()
    _check_order(read, payloads)
    _check_claim(claim, body, large)
    _check_small(read, payloads)
    assert metrics.total("bridge_claim_checks_total", sink="nats") == 1


async def test_in_a_server_with_small_messages_it_is_an_object_too(
    tmp_path: Path, nats_server: NatsBroker
) -> None:
    payloads, large = _feed()
    environ = {
        "BRIDGE_NATS__SERVERS": nats_server.url,
        "BRIDGE_NATS__STREAM": "large-nats",
        "BRIDGE_PREFIX": "large-nats",
        "BRIDGE_FORMAT": "protobuf",
    }
    await _bridge(tmp_path, environ, payloads)
    read = await read_stream(nats_server.url, "large-nats")
    _check_order(read, payloads)
    body = await fetch_from_nats(nats_server.url, read[_SMALL].attributes["dataref"])
    _check_claim(read[_SMALL], body, large)
    _check_small(read, payloads)


async def _make_topic(bootstrap: str, name: str, max_message_bytes: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        limit: Any = {"max.message.bytes": str(max_message_bytes)}
        answer = await admin.create_topics([NewTopic(name, 1, 1, topic_configs=limit)])
    finally:
        await admin.close()
    assert [error[1] for error in answer.topic_errors] == [0]


@pytest.mark.parametrize(
    ("prefix", "format", "max_message_bytes"),
    [
        ("large-json", "json", None),
        ("large-protobuf", "protobuf", None),
        ("large-1mb", "protobuf", 1_000_000),
        ("large-all-1mb", "json", 1_000_000),
    ],
)
async def test_in_kafka_it_lies_in_parts_beside_its_topic(
    tmp_path: Path, kafka: KafkaBroker, prefix: str, format: str, max_message_bytes: int | None
) -> None:
    payloads, large = _feed()
    if max_message_bytes:
        await _make_topic(kafka.bootstrap, f"{prefix}.entry-reveal", max_message_bytes)
    environ = {
        "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap,
        "BRIDGE_PREFIX": prefix,
        "BRIDGE_FORMAT": format,
    }
    if prefix == "large-all-1mb":
        await _make_topic(kafka.bootstrap, f"{prefix}.large", max_message_bytes or 0)
    await _bridge(tmp_path, environ, payloads)
    read = (await read_topics(kafka.bootstrap, prefix))[f"{prefix}.entry-reveal"]
    _check_order(read, payloads)
    body = await fetch_from_kafka(kafka.bootstrap, read[_SMALL].attributes["dataref"])
    _check_claim(read[_SMALL], body, large)
    _check_small(read, payloads)


async def test_a_kafka_topic_that_is_large_enough_takes_it_whole(
    tmp_path: Path, kafka: KafkaBroker
) -> None:
    payloads, large = _feed()
    await _make_topic(kafka.bootstrap, "large-64mb.entry-reveal", 64 * 1024 * 1024)
    environ = {
        "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap,
        "BRIDGE_PREFIX": "large-64mb",
        "BRIDGE_FORMAT": "protobuf",
    }
    await _bridge(tmp_path, environ, payloads)
    read = (await read_topics(kafka.bootstrap, "large-64mb"))["large-64mb.entry-reveal"]
    _check_order(read, payloads)
    member = FactomEvent.FromString(large).entryReveal
    assert read[_SMALL].data == member.SerializeToString(deterministic=True)
