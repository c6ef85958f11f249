"""`factom-bridge explain`: what became of one hash or height, as plain consumers find it too."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from bridge.core.decode import decode
from bridge.model import Kind
from tests.brokers.kafka import KafkaBroker
from tests.brokers.nats import NatsBroker
from tests.support.bridge_process import BridgeProcess, run_command
from tests.support.captures import Capture, find_capture
from tests.support.consumers import Read, read_stream, read_topics

pytestmark = pytest.mark.brokers

_HEIGHT = 5

Place = tuple[str | int, ...]


def _environ(kafka: KafkaBroker, nats_server: NatsBroker, name: str) -> dict[str, str]:
    return {
        "BRIDGE_PREFIX": name,
        "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap,
        "BRIDGE_KAFKA__PARTITIONS": "3",
        "BRIDGE_NATS__SERVERS": nats_server.url,
        "BRIDGE_NATS__STREAM": name,
    }


def _capture() -> Capture:
    capture = find_capture("replay-from-height")
    assert capture is not None
    return capture


async def _filled(bridge: BridgeProcess) -> None:
    capture = _capture()
    await asyncio.to_thread(bridge.wait_ready)
    await capture.play(bridge.feed_port)
    await bridge.delivered(len(capture.events()))


async def _explain(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(run_command, "explain", *arguments, environ=environ, seconds=60)


async def _told(environ: dict[str, str], *arguments: str) -> dict[str, Any]:
    done = await _explain(environ, *arguments, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _reveal() -> tuple[str, str]:
    """Return entry hash and chain id of a reveal of the recording, in hex."""
    for payload in _capture().payloads():
        event = decode(payload)
        if event is not None and event.kind is Kind.ENTRY_REVEAL:
            return event.member.entry.hash.hex(), event.member.entry.chainID.hex()
    raise AssertionError


def _count(kind: Kind, chain: bytes) -> int:
    """Return how many reveals, or chain commits, of `chain` the recording has."""
    twice = hashlib.sha256(hashlib.sha256(chain).digest()).digest()
    events = (event for event in map(decode, _capture().payloads()) if event is not None)
    members = (event.member for event in events if event.kind is kind)
    if kind is Kind.ENTRY_REVEAL:
        return sum(member.entry.chainID == chain for member in members)
    return sum(member.chainIDHash == twice for member in members)


async def _consumed(
    kafka: KafkaBroker, nats_server: NatsBroker, name: str
) -> tuple[list[Read], dict[str, set[Place]]]:
    """Return what plain consumers have, and by id where they have it."""
    stream = await read_stream(nats_server.url, name)
    topics = await read_topics(kafka.bootstrap, name)
    places: dict[str, set[Place]] = defaultdict(set)
    for read in stream:
        places[read.id].add(("nats", name, read.place, read.position))
    for read in (read for topic in topics.values() for read in topic):
        places[read.id].add(("kafka", read.place, read.partition, read.position))
    return stream, places


def _place(told: dict[str, Any]) -> Place:
    if told["broker"] == "nats":
        return ("nats", told["stream"], told["subject"], told["sequence"])
    return ("kafka", told["topic"], told["partition"], told["offset"])


def _check_places(answer: dict[str, Any], consumed: dict[str, set[Place]]) -> None:
    """Each event is told to stand in both brokers, and at places where a consumer has it."""
    assert answer["events"]
    for event in answer["events"]:
        places = [_place(place) for place in event["published"]]
        assert {place[0] for place in places} == {"kafka", "nats"}, event
        assert set(places) <= consumed[event["id"]]


async def test_a_hash_and_a_height_are_found_where_consumers_have_them(
    tmp_path: Path, kafka: KafkaBroker, nats_server: NatsBroker
) -> None:
    entry, chain = _reveal()
    environ = _environ(kafka, nats_server, "explained")
    with BridgeProcess(tmp_path, environ) as bridge:
        await _filled(bridge)
        of_entry = await _told(bridge.environ, entry)
        of_chain = await _told(bridge.environ, chain)
        of_height = await _told(bridge.environ, str(_HEIGHT))
        shown = await _explain(bridge.environ, entry.upper())
        unknown = await _explain(bridge.environ, "ab" * 32)
        bridge.stop()
    stream, consumed = await _consumed(kafka, nats_server, "explained")
    for answer in (of_entry, of_chain, of_height):
        _check_places(answer, consumed)

    # The stream holds each event once: what names the subject there was found, and no more.
    hex_ids = {read.id for read in stream if entry.encode() in read.data}
    assert {event["id"] for event in of_entry["events"]} == hex_ids
    assert {event["kind"] for event in of_entry["events"]} >= {
        "entry-reveal",
        "directory-block-commit",
    }
    heights = {read.id for read in stream if read.attributes.get("blockheight") == str(_HEIGHT)}
    assert {event["id"] for event in of_height["events"]} == heights
    blocks = [each for each in of_height["events"] if each["kind"] == "directory-block-commit"]
    assert {(each["way"], each["state"]) for each in blocks} == {
        ("live", "summary"),
        ("replay", "hashes"),
    }
    assert {each["peer"] for each in of_height["events"]} >= {"tcp/1"}
    assert of_chain["counts"]["entry-reveal"] == _count(Kind.ENTRY_REVEAL, bytes.fromhex(chain))
    assert of_chain["counts"]["chain-commit"] == _count(Kind.CHAIN_COMMIT, bytes.fromhex(chain))

    assert shown.returncode == 0
    assert "entry-reveal REQUESTED" in shown.stdout
    for event in of_entry["events"]:
        for place in event["published"]:
            if place["broker"] == "kafka":
                told = f"kafka: {place['topic']} at {place['partition']}/{place['offset']}"
            else:
                told = f"nats: {place['stream']} {place['sequence']}, {place['subject']}"
            assert told in shown.stdout
    assert "the journal goes back to number 1" in shown.stdout
    assert unknown.returncode == 1
    assert "nothing is known of it" in unknown.stdout


async def test_without_the_journal_the_brokers_are_read_whole(
    tmp_path: Path, kafka: KafkaBroker, nats_server: NatsBroker
) -> None:
    entry, _ = _reveal()
    environ = _environ(kafka, nats_server, "unjournaled")
    with BridgeProcess(tmp_path / "journal", environ) as bridge:
        await _filled(bridge)
        with_journal = await _told(bridge.environ, entry)
        height = await _told(bridge.environ, str(_HEIGHT), "--whole")
        bridge.stop()
    elsewhere = bridge.environ | {"BRIDGE_JOURNAL__DIR": str(tmp_path / "elsewhere")}
    without = await _told(elsewhere, entry)
    of_height = await _told(elsewhere, str(_HEIGHT))
    _, consumed = await _consumed(kafka, nats_server, "unjournaled")
    for answer in (without, of_height, height):
        _check_places(answer, consumed)
    for some, other in ((without, with_journal), (of_height, height)):
        assert {each["id"] for each in some["events"]} == {each["id"] for each in other["events"]}
    assert any("there is no journal" in note for note in without["notes"])
    assert "kafka was read whole" in without["notes"]
    assert {each["peer"] for each in without["events"]} == {""}


async def test_brokers_that_are_away_are_named_and_the_journal_still_tells(tmp_path: Path) -> None:
    entry, _ = _reveal()
    with BridgeProcess(tmp_path, {"BRIDGE_OFF": "entry-reveal"}) as bridge:
        await _filled(bridge)
        there = await _told(bridge.environ, entry)
        bridge.stop()
        away = await _told(bridge.environ, entry)
    kinds = {each["kind"]: each for each in there["events"]}
    assert kinds["entry-reveal"]["left_out"] == "switched-off"
    assert kinds["directory-block-commit"]["published"][0]["broker"] == "nats"
    assert [each["seq"] for each in away["events"]] == [each["seq"] for each in there["events"]]
    assert not any(each["published"] for each in away["events"])
    assert any(note.startswith("nats: ") for note in away["notes"])
