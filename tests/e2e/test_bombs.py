"""Events of the permitted maximum that cost their reader as much as can be: others notice nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bridge.pb.bridge.v1.dead_letter_pb2 import DeadLetter
from tests.support.bombs import BOMBS
from tests.support.bridge_process import BridgeProcess
from tests.support.consumers import read_stream
from tests.support.journal_file import event_id
from tests.support.maker import Maker
from tests.support.pauses import watching

pytestmark = [pytest.mark.brokers, pytest.mark.timeout(300)]

_WORST = (
    "protobuf: nested entries, as many as pass",
    "protobuf: unknown fields",
    "JSON: wide text",
    "JSON: keys, as many as pass",
    "JSON: entries, as many as pass",
)
_MOST_BYTES = 512_000_000
_LONGEST_PAUSE = 1.0
"""Four times what is promised: other tests may hold the processors. `tests.bench.bombs` measures."""

_TRUE = 400


async def test_bombs_are_dead_letters_and_the_other_node_is_heard(tmp_path: Path) -> None:
    maker = Maker(77)
    true = [maker.commit()[5:] for _ in range(_TRUE)]
    environ = {"BRIDGE_FORMAT": "protobuf"}
    with BridgeProcess(tmp_path, environ) as bridge:
        await asyncio.to_thread(bridge.wait_ready)
        assert bridge.pid is not None
        async with watching(bridge.pid, bridge.status_port) as watched:
            beside = asyncio.create_task(_send(bridge.feed_port, true, pause=0.02))
            for name in _WORST:
                # One after the other: how much of several waits is another limit's.
                await _send(bridge.feed_port, [BOMBS[name]()])
                await asyncio.to_thread(_wait_for_letter, bridge, _WORST.index(name) + 1)
            await beside
            await bridge.delivered(_TRUE + len(_WORST), 240)
        read = await read_stream(f"nats://127.0.0.1:{bridge.nats_port}")
        bridge.stop()
    letters = [DeadLetter.FromString(each.data) for each in read if each.kind == "dead-letter"]
    assert len(letters) == len(_WORST)
    assert {each.reason for each in letters} <= {
        "invalid-json",
        "invalid-protobuf",
        "too-many-parts",
        "too-costly",
    }
    ids = [each.id for each in read if each.kind != "dead-letter"]
    assert ids == [event_id(payload)[1] for payload in true]
    print(f"memory {watched.peak_bytes / 1e6:.0f} MB, longest pause {watched.pause * 1000:.0f} ms")
    assert watched.peak_bytes < _MOST_BYTES
    assert watched.pause < _LONGEST_PAUSE


def _wait_for_letter(bridge: BridgeProcess, count: int) -> None:
    bridge.wait_for(
        lambda: bridge.metrics().total("bridge_dead_letters_total") >= count, 60, "dead-letter it"
    )


async def _send(port: int, payloads: list[bytes], pause: float = 0) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    for payload in payloads:
        writer.write(b"\1" + len(payload).to_bytes(4, "little") + payload)
        await writer.drain()
        await asyncio.sleep(pause)
    writer.close()
    await writer.wait_closed()
