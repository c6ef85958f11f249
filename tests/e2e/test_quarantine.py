"""A payload that makes the process die is set aside at the fourth start; all others go out."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from bridge.pb.bridge.v1.dead_letter_pb2 import DeadLetter
from bridge.pb.eventmessages.factomEvents_pb2 import FactomEvent
from tests.brokers.kafka import KafkaBroker
from tests.brokers.nats import NatsBroker
from tests.faults.poison import POISON
from tests.faults.victim import Launched
from tests.support.consumers import Read
from tests.support.journal_file import JournalFile, event_id
from tests.support.maker import Maker
from tests.support.sinks import Sinks

pytestmark = pytest.mark.brokers

_CRASHES = 3
_SECONDS = 60


def _poison() -> bytes:
    entry = {"hash": bytes(32), "content": POISON}
    return FactomEvent(entryReveal={"entry": entry}).SerializeToString()


async def _send(port: int, *frames: bytes) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"".join(frames))
        await writer.drain()
    finally:
        writer.close()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("dies", ["bridge.core.decode", "bridge.core.peek"])
async def test_a_payload_in_flight_at_three_crashes_is_a_dead_letter_and_all_others_go_out(
    tmp_path: Path, kafka: KafkaBroker, nats_server: NatsBroker, dies: str
) -> None:
    sinks = Sinks(kafka, nats_server, f"poison-{dies.rpartition('.')[2]}")
    environ = {**sinks.environ, "POISONED": dies}
    bridge = Launched(tmp_path, environ, module="tests.faults.poison")
    maker, poison = Maker(3), _poison()
    before, after, later = ([maker.mix() for _ in range(20)] for _ in range(3))
    framed = b"\x01" + len(poison).to_bytes(4, "little") + poison
    try:
        await asyncio.to_thread(bridge.start)
        await asyncio.to_thread(bridge.wait_ready, _SECONDS)
        await _send(bridge.feed_port, *before)
        await bridge.delivered(len(before), _SECONDS)
        await _send(bridge.feed_port, *after[:10], framed, *after[10:])
        for crash in range(_CRASHES):
            if crash:
                await asyncio.to_thread(bridge.launch)
            assert await asyncio.to_thread(bridge.wait, _SECONDS) == -signal.SIGABRT
        for sent in (later, []):
            await asyncio.to_thread(bridge.start)
            await asyncio.to_thread(bridge.wait_ready, _SECONDS)
            await _send(bridge.feed_port, *sent)
            metrics = await bridge.delivered(len(sent), _SECONDS)
            assert metrics.total("bridge_records_quarantined") == 1
            letters = metrics.by("bridge_dead_letters_total", "reason")
            # Twice, once for each sink; and never again.
            assert letters == ({"quarantined": 2} if sent else {})
            await asyncio.to_thread(bridge.stop)
    finally:
        bridge.kill()
    _told(bridge)

    stored = JournalFile(tmp_path).stored()
    sent_ids = [event_id(frame[5:])[1] for frame in (*before, *after[:10], framed, *after[10:])]
    accepted = [record.id for record in stored]
    # What came behind the poison may not have been read when the process died of it.
    cut = len(accepted) - len(later)
    assert cut > len(before) + 10
    assert accepted == sent_ids[:cut] + [event_id(frame[5:])[1] for frame in later]

    (deadly,) = (record.seq for record in stored if record.id == event_id(poison)[1])
    streamed = await sinks.streamed()
    assert [message.seq for message in streamed] == [record.seq for record in stored]
    good = [(record.seq, record.id) for record in stored if record.seq != deadly]
    assert [(m.seq, m.id) for m in streamed if m.seq != deadly] == good
    topics = await sinks.in_topics()
    for topic, held in topics.items():
        expected = [(r.seq, r.id) for r in stored if r.kind == topic and r.seq != deadly]
        assert [(m.seq, m.id) for m in held if m.seq != deadly] == expected
    assert sum(len(held) for held in topics.values()) == len(stored)
    (in_stream,) = (message for message in streamed if message.seq == deadly)
    (in_topic,) = topics["dead-letter"]
    assert in_stream.id == in_topic.id
    assert in_stream.place == f"{sinks.name}.dead-letter.quarantined"
    for letter in (in_stream, in_topic):
        _is_of(poison, letter, deadly)


def _is_of(poison: bytes, message: Read, seq: int) -> None:
    letter = DeadLetter.FromString(message.data)
    assert (letter.reason, letter.seq, letter.payload) == ("quarantined", seq, poison)
    assert "report these bytes" in letter.sentence


def _told(bridge: Launched) -> None:
    lines = [line for line in bridge.logged() if "work" in line]
    assert [line["crashes"] for line in lines] == [1, 2, 3]
    assert [line["level"] for line in lines] == ["warning", "warning", "error"]
    assert "dead letter" in lines[-1]["remedy"]
