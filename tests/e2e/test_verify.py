"""`factom-bridge verify`: proves from what the brokers hold that it is complete, or names what not."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Literal

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from nats.js.api import DiscardPolicy, StorageType, StreamConfig

from bridge.core.asjson import JsonWriter
from bridge.core.decode import decode
from bridge.errors import DecodeError
from bridge.model import Kind
from bridge.verifying.data import Data
from bridge.verifying.source import Published
from tests.brokers.kafka import KafkaBroker
from tests.brokers.nats import NatsBroker
from tests.brokers.process import free_port
from tests.support.bridge_process import BridgeProcess, run_command
from tests.support.captures import find_capture
from tests.support.consumers import nats_client

pytestmark = pytest.mark.brokers

_GAPS = {"gap-api": (4, 26), "gap-long": (4, 25)}


async def _filled(bridge: BridgeProcess, name: str) -> None:
    """Play the recording into `bridge`, and return when its brokers have it."""
    capture = find_capture(name)
    assert capture is not None
    await asyncio.to_thread(bridge.wait_ready)
    await capture.play(bridge.feed_port)
    await bridge.delivered(len(capture.events()))


async def _verify(
    bridge: BridgeProcess, *arguments: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        run_command, "verify", *arguments, environ=bridge.environ | environ, seconds=60
    )


def _line(done: subprocess.CompletedProcess[str], what: str) -> list[str]:
    """Return the words of the table's line about `what`, behind its name."""
    line = next(line for line in done.stdout.splitlines() if line.startswith(what))
    return line.removeprefix(what).split()


async def test_a_gap_is_named_in_the_embedded_servers_stream(tmp_path: Path) -> None:
    name = next(name for name in _GAPS if find_capture(name) is not None)
    first, last = _GAPS[name]
    with BridgeProcess(tmp_path) as bridge:
        await _filled(bridge, name)
        whole = await _verify(bridge)
        part = await _verify(bridge, "--from", "27", "--to", "30")
        beyond = await _verify(bridge, "--from", "27", "--to", "31", "--sink", "nats")
        bridge.stop()
    assert whole.returncode == 1, whole.stderr
    assert f"- heights {first} to {last} are missing\n" in whole.stdout
    assert _line(whole, "heights")[:2] == ["30", str(last - first + 1)]
    assert "not complete" in whole.stdout
    assert part.returncode == 0, part.stdout
    assert beyond.returncode == 1
    assert "- height 31 is missing\n" in beyond.stdout


@pytest.mark.parametrize(
    "chosen",
    [
        {"BRIDGE_FORMAT": "json"},
        {"BRIDGE_FORMAT": "json", "BRIDGE_JSON_BYTES": "base64"},
        {"BRIDGE_FORMAT": "protobuf"},
    ],
    ids=["hex", "base64", "protobuf"],
)
async def test_a_feed_without_a_gap_is_complete_however_it_is_written(
    chosen: dict[str, str], tmp_path: Path
) -> None:
    with BridgeProcess(tmp_path, chosen) as bridge:
        await _filled(bridge, "tcp-protobuf-once")
        done = await _verify(bridge)
        bridge.stop()
    assert done.returncode == 0, done.stdout + done.stderr
    assert _line(done, "heights")[:2] == ["8", "0"]
    assert _line(done, "commits")[:2] == ["62", "0"]
    assert "not provable without entry blocks for 5 heights" in done.stdout


async def _make_room_for_small_messages_only(kafka: KafkaBroker, nats_server: NatsBroker) -> None:
    """Make topic and stream before the bridge does, so that it must set blocks aside."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        limit: Any = {"max.message.bytes": "8192"}
        topic = NewTopic("verified.directory-block-commit", 1, 1, topic_configs=limit)
        answer = await admin.create_topics([topic])
    finally:
        await admin.close()
    assert [error[1] for error in answer.topic_errors] == [0]
    async with nats_client(nats_server.url) as client:
        await client.jetstream().add_stream(
            StreamConfig(
                name="verified",
                subjects=["verified.>"],
                storage=StorageType.FILE,
                discard=DiscardPolicy.NEW,
                duplicate_window=7200,
                max_msg_size=6000,
            )
        )


async def test_both_brokers_are_read_claim_checks_included_and_tell_the_same(
    tmp_path: Path, kafka: KafkaBroker, nats_server: NatsBroker
) -> None:
    await _make_room_for_small_messages_only(kafka, nats_server)
    environ = {
        "BRIDGE_PREFIX": "verified",
        "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap,
        "BRIDGE_KAFKA__PARTITIONS": "3",
        "BRIDGE_NATS__SERVERS": nats_server.url,
        "BRIDGE_NATS__STREAM": "verified",
    }
    with BridgeProcess(tmp_path, environ) as bridge:
        await _filled(bridge, "replay-from-height")
        claims = bridge.metrics().by("bridge_claim_checks_total", "sink")
        both = await _verify(bridge)
        missing = await _verify(bridge, "--sink", "kafka", "--to", "9")
        async with nats_client(nats_server.url) as client:
            await client.jetstream().delete_object_store("verified-large")
        lost = await _verify(bridge, "--sink", "nats")
        bridge.stop()
    assert claims["kafka"]
    assert claims["nats"]
    assert both.returncode == 0, both.stdout + both.stderr
    for sink in ("kafka", "nats"):
        assert f"{sink}: heights 0 to 8" in both.stdout
    tables = both.stdout.split("nats: heights")
    lines = [[line.split()[:6] for line in table.splitlines()[2:8]] for table in tables]
    # The stream holds an event once, the topics as often as the node sent it.
    assert lines[0][1] == lines[1][1]
    assert lines[0][3:] == lines[1][3:]
    assert missing.returncode == 1
    assert "- height 9 is missing\n" in missing.stdout
    assert "nats" not in missing.stdout
    assert lost.returncode == 1
    assert re.search(r"- verified.directory-block-commit at \d+: nats:///\S+ is not", lost.stdout)


def test_brokers_that_are_away_and_what_makes_no_sense_have_their_exit_codes(
    tmp_path: Path, nats_server: NatsBroker
) -> None:
    folder = {"BRIDGE_JOURNAL__DIR": str(tmp_path)}
    nobody = f"127.0.0.1:{free_port()}"
    cases: list[tuple[int, str, list[str], dict[str, str]]] = [
        (64, "5 to 4", ["--from", "5", "--to", "4"], {}),
        (64, "--from", ["--from", "-1"], {}),
        (64, "--to", ["--to", "4294967296"], {}),
        (64, "kafka", ["--sink", "kafka"], {}),
        (64, "BRIDGE_OFF", [], {"BRIDGE_OFF": "directory-block-commit"}),
        (69, "ports.json", [], {}),
        (69, "NATS", [], {"BRIDGE_NATS__SERVERS": f"nats://{nobody}"}),
        (69, "Kafka", [], {"BRIDGE_KAFKA__BOOTSTRAP_SERVERS": nobody}),
        (69, "no stream", [], {"BRIDGE_NATS__SERVERS": nats_server.url}),
    ]
    for code, told, arguments, environ in cases:
        done = run_command("verify", *arguments, environ=folder | environ)
        assert done.returncode == code, (told, done.stderr)
        assert told in done.stderr
        assert "Traceback" not in done.stderr


# Reading the data


class _NoSource:
    name = "none"

    def read(self, kind: Kind, since_ns: int = 0) -> AsyncGenerator[Published, None]:
        raise AssertionError

    async def fetch(self, reference: str) -> bytes:
        if reference == "lost":
            raise LookupError(reference)
        return b"{}"


@pytest.mark.parametrize("json_bytes", ["hex", "base64"])
@pytest.mark.parametrize("name", ["replay-from-height", "allfields-tcp-protobuf"])
async def test_json_reads_back_as_what_it_was_written_from(
    name: str, json_bytes: Literal["hex", "base64"]
) -> None:
    capture = find_capture(name)
    assert capture is not None
    data, writer = Data(_NoSource(), json_bytes), JsonWriter(json_bytes)
    events = [event for event in map(decode, capture.payloads()) if event is not None]
    for event in events:
        body = writer.write(event.member)
        message = Published("here", 0, {"datacontenttype": "application/json"}, body)
        assert await data.read(event.kind, message) == event.member
    assert events


@pytest.mark.parametrize(
    ("attributes", "body", "told"),
    [
        ({"datacontenttype": "application/json"}, b"{", "unreadable"),
        ({"datacontenttype": "application/json"}, b"[1]", "unreadable"),
        ({"datacontenttype": "application/json"}, b'{"entryHash": 1}', "unreadable"),
        ({"datacontenttype": "application/json"}, b'{"entryHash": "xy"}', "unreadable"),
        ({"datacontenttype": "application/json"}, b'{"credits": -1}', "unreadable"),
        ({"datacontenttype": "application/json"}, b'{"another": 1}', "unreadable"),
        ({"datacontenttype": "application/json"}, b'{"timestamp": "today"}', "unreadable"),
        ({"datacontenttype": "application/protobuf"}, b"\xff", "unreadable"),
        ({"datacontenttype": "text/plain"}, b"", "text/plain"),
        ({}, b"", "None"),
        ({"dataref": "lost"}, b"", "lost is not there"),
        ({"dataref": "found", "datasha256": "00"}, b"", "another SHA-256"),
    ],
)
async def test_what_cannot_be_read_is_named_with_its_place(
    attributes: dict[str, str], body: bytes, told: str
) -> None:
    message = Published("factom.entry-commit at 7", 0, attributes, body)
    with pytest.raises(DecodeError, match=f"^factom.entry-commit at 7: .*{told}"):
        await Data(_NoSource(), "hex").read(Kind.ENTRY_COMMIT, message)
