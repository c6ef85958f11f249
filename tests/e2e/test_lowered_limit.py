"""A topic's limit is lowered while the bridge runs: what no longer fits is set aside, all else goes on.

The bridge does not ask for the limit again until a batch is refused, and a batch that was built for
the old one is refused with all that is in it: also small events that would fit alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path

import pytest

from bridge.pb.eventmessages.factomEvents_pb2 import FactomEvent
from tests.brokers.kafka import KafkaBroker
from tests.support.bridge_process import BridgeProcess
from tests.support.consumers import fetch_from_kafka, read_topics, without_repeats
from tests.support.journal_file import event_id
from tests.support.kafka_config import set_config
from tests.support.maker import Maker

pytestmark = [pytest.mark.brokers, pytest.mark.timeout(300)]

_LIMIT = 20_000
_LARGE_BYTES = 100_000
_SMALL = 500
_SECONDS = 120


async def _send(bridge: BridgeProcess, frames: list[bytes]) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", bridge.feed_port)
    writer.write(b"".join(frames))
    await writer.drain()
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("has_large", [True, False], ids=["a large one among them", "small alone"])
async def test_a_limit_lowered_while_running_costs_no_event_and_no_order(
    tmp_path: Path, kafka: KafkaBroker, *, has_large: bool
) -> None:
    maker, prefix = Maker(30), f"lowered-{has_large}".lower()
    before, after = ([maker.reveal(600) for _ in range(_SMALL)] for _ in range(2))
    large = maker.reveal(_LARGE_BYTES)
    topic = f"{prefix}.entry-reveal"
    environ = {
        "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap,
        "BRIDGE_PREFIX": prefix,
        # Many events are in one commit, and so in one batch.
        "BRIDGE_JOURNAL__COMMIT_DELAY_MS": "20",
    }
    with BridgeProcess(tmp_path, environ) as bridge:
        await asyncio.to_thread(bridge.wait_ready)
        await _send(bridge, before)
        await bridge.delivered(len(before), _SECONDS)
        await set_config(kafka.bootstrap, topic, "max.message.bytes", str(_LIMIT))
        frames = [*after[::2], *([large] if has_large else []), *after[1::2]]
        await _send(bridge, frames)
        metrics = await bridge.delivered(len(before) + len(frames), _SECONDS)
        assert bridge.ready()["ready"]
        bridge.stop()

    sent = [frame[5:] for frame in (*before, *frames)]
    read = without_repeats((await read_topics(kafka.bootstrap, prefix))[topic])
    assert [message.id for message in read] == [event_id(payload)[1] for payload in sent]
    assert metrics.total("bridge_claim_checks_total", sink="kafka") == has_large
    assert not metrics.total("bridge_dead_letters_total")
    # What was refused is no fault of the sink: it was never down.
    assert not metrics.total("bridge_sink_errors_total")
    aside = [message for message in read if "dataref" in message.attributes]
    assert len(aside) == has_large
    for claim in aside:
        assert claim.id == event_id(large[5:])[1]
        body = await fetch_from_kafka(kafka.bootstrap, claim.attributes["dataref"])
        assert claim.attributes["datasha256"] == hashlib.sha256(body).hexdigest()
        content = FactomEvent.FromString(large[5:]).entryReveal.entry.content
        assert json.loads(body)["entry"]["content"] == content.hex()
