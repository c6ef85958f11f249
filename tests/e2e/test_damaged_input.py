"""What is no feed, beside a good node: it is told, it costs its own connection at most."""

from __future__ import annotations

import asyncio
import json
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.support.bridge_process import BridgeProcess
from tests.support.consumers import Read, read_stream
from tests.support.journal_file import event_id
from tests.support.maker import Maker

pytestmark = pytest.mark.brokers

_SECONDS = 10
_HEADER = struct.Struct("<Bi")
_HTTP = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

# Bytes that are no frame close the connection; what is a frame but no event does not.
_NO_FRAMES = {
    "an HTTP request": (_HTTP, "frame-version"),
    "the TLS greeting": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "frame-version"),
    "another version": (_HEADER.pack(2, 5) + b"hello", "frame-version"),
    "a negative length": (_HEADER.pack(1, -1), "frame-length"),
    "the smallest length": (_HEADER.pack(1, -(2**31)), "frame-length"),
    "a length just too large": (_HEADER.pack(1, 32 * 1024 * 1024 + 1), "frame-length"),
    "the largest length": (_HEADER.pack(1, 2**31 - 1), "frame-length"),
}
_NO_EVENTS = {
    "noise": (b"\xff" * 20, "invalid-protobuf"),
    "a cut event": (b"\x22\x7f\x0a", "invalid-protobuf"),
    "a newer event": (b"\xfa\x06\x03abc", "unknown-event"),
    "cut JSON": (b'{"eventSource": 0, "Event": {', "invalid-json"),
    "JSON of another thing": (b'{"eventSource": "no"}', "invalid-json"),
    "deep JSON": (b'{"a":' * 50 + b"1" + b"}" * 50, "invalid-json"),
}


def _framed(payload: bytes) -> bytes:
    return _HEADER.pack(1, len(payload)) + payload


class _GoodNode:
    """Sends an event now and then, and notes it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._maker = Maker(8)
        self.ids: list[str] = []

    async def run(self) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            while True:
                frame = self._maker.commit()
                self.ids.append(event_id(frame[5:])[1])
                writer.write(frame)
                await writer.drain()
                await asyncio.sleep(0.005)
        finally:
            writer.close()
            await writer.wait_closed()


@asynccontextmanager
async def _good_node(bridge: BridgeProcess) -> AsyncIterator[_GoodNode]:
    node = _GoodNode(bridge.feed_port)
    sending = asyncio.create_task(node.run())
    try:
        yield node
    finally:
        assert not sending.done(), "the good node was cut off"
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def _until_closed(port: int, sent: bytes) -> None:
    """Send, and wait for the bridge to close the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        with suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), _SECONDS) == b"", "nothing is answered"
    finally:
        writer.close()


async def _send(port: int, sent: bytes) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    await writer.drain()
    writer.close()
    await writer.wait_closed()


def _letters(read: list[Read]) -> list[Read]:
    return [message for message in read if message.kind == "dead-letter"]


async def test_each_damage_gives_a_dead_letter_and_the_good_feed_goes_on(tmp_path: Path) -> None:
    good, after = Maker(9).commit(), Maker(10).commit()
    with BridgeProcess(tmp_path) as bridge:
        await asyncio.to_thread(bridge.wait_ready)
        async with _good_node(bridge) as node:
            for damage, _ in _NO_FRAMES.values():
                await _until_closed(bridge.feed_port, good + damage)
            for payload, _ in _NO_EVENTS.values():
                await _send(bridge.feed_port, _framed(payload) + after)
        accepted = len(node.ids) + 2 * len(_NO_FRAMES) + 2 * len(_NO_EVENTS)
        metrics = await bridge.delivered(accepted)
        read = await read_stream(f"nats://127.0.0.1:{bridge.nats_port}")
        bridge.stop()
    letters = _letters(read)
    expected = Counter(reason for _, reason in (*_NO_FRAMES.values(), *_NO_EVENTS.values()))
    assert Counter(json.loads(letter.data)["reason"] for letter in letters) == expected
    assert Counter(letter.place.removeprefix("factom.dead-letter.") for letter in letters) == (
        expected
    )
    told = {bytes.fromhex(json.loads(letter.data)["payload"]) for letter in letters}
    assert told == {damage for damage, _ in _NO_FRAMES.values()} | {
        payload for payload, _ in _NO_EVENTS.values()
    }
    others = {event_id(frame[5:])[1] for frame in (good, after)}
    ids = [message.id for message in read if message.kind != "dead-letter"]
    assert [id_ for id_ in ids if id_ not in others] == node.ids
    assert others <= set(ids)
    for reason, number in Counter(reason for _, reason in _NO_FRAMES.values()).items():
        assert metrics.total("bridge_refused_total", reason=reason) == number
    assert metrics.by("bridge_dead_letters_total", "reason") == expected


async def test_damage_is_the_same_when_it_comes_byte_by_byte(tmp_path: Path) -> None:
    with BridgeProcess(tmp_path) as bridge:
        reader, writer = await asyncio.open_connection("127.0.0.1", bridge.feed_port)
        with pytest.raises((ConnectionError, AssertionError)):
            for place in range(len(_HTTP)):
                writer.write(_HTTP[place : place + 1])
                await writer.drain()
                await asyncio.sleep(0.01)
                assert not reader.at_eof()
        writer.close()
        await bridge.delivered(1)
        (letter,) = _letters(await read_stream(f"nats://127.0.0.1:{bridge.nats_port}"))
        bridge.stop()
    payload = bytes.fromhex(json.loads(letter.data)["payload"])
    assert _HTTP.startswith(payload)
    assert len(payload) >= _HEADER.size


async def test_a_frame_that_stays_unfinished_is_given_up(tmp_path: Path) -> None:
    environ = {"BRIDGE_FEED__PARTIAL_FRAME_SECONDS": "1"}
    with BridgeProcess(tmp_path, environ) as bridge:
        async with _good_node(bridge) as node:
            await _until_closed(bridge.feed_port, _framed(bytes(100))[:50])
        metrics = await bridge.delivered(len(node.ids))
        bridge.stop()
    assert metrics.total("bridge_refused_total", reason="partial-frame-late") == 1


async def test_an_empty_event_is_counted_and_gives_no_message(tmp_path: Path) -> None:
    with BridgeProcess(tmp_path) as bridge:
        await _send(bridge.feed_port, _framed(b"") + _framed(b"{}"))
        metrics = await bridge.delivered(2)
        assert await read_stream(f"nats://127.0.0.1:{bridge.nats_port}") == []
        bridge.stop()
    assert metrics.total("bridge_events_left_out_total", reason="empty") == 2


async def _is_let_in(port: int) -> asyncio.StreamWriter | None:
    """Return the connection if the bridge keeps it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await asyncio.wait_for(reader.read(1), 0.3)
    except TimeoutError:
        return writer
    except ConnectionError:
        pass
    writer.close()
    return None


@pytest.mark.parametrize(
    ("environ", "allowed", "reason"),
    [
        ({}, 4, "too-many-from-address"),
        ({"BRIDGE_FEED__MAX_CONNECTIONS": "2"}, 2, "too-many-connections"),
        ({"BRIDGE_FEED__ALLOW": "10.0.0.0/8"}, 0, "not-allowed"),
    ],
)
async def test_a_connection_too_many_is_refused_and_the_others_stay(
    tmp_path: Path, environ: dict[str, str], allowed: int, reason: str
) -> None:
    with BridgeProcess(tmp_path, environ) as bridge:
        found = [await _is_let_in(bridge.feed_port) for _ in range(allowed + 2)]
        kept = [writer for writer in found if writer is not None]
        assert len(kept) == allowed
        assert bridge.metrics().total("bridge_refused_total", reason=reason) == 2
        for writer in kept:
            writer.write(_framed(b"{}"))
            await writer.drain()
        await bridge.delivered(allowed)
        if kept:
            kept[0].close()
            await kept[0].wait_closed()
            again = await _until_let_in(bridge)
            again.close()
        for writer in kept[1:]:
            writer.close()
        bridge.stop()
        told = [line for line in bridge.logged() if line.get("reason") == reason]
    assert len(told) == 1, "refusals are logged once in ten seconds"


async def _until_let_in(bridge: BridgeProcess) -> asyncio.StreamWriter:
    """The bridge may not have noticed yet that one has gone."""
    async with asyncio.timeout(_SECONDS):
        while (writer := await _is_let_in(bridge.feed_port)) is None:
            pass
    return writer


async def test_a_storm_of_connections_is_let_in_by_and_by(tmp_path: Path) -> None:
    with BridgeProcess(tmp_path, {"BRIDGE_FEED__MAX_NEW_CONNECTIONS_PER_SECOND": "5"}) as bridge:
        for _ in range(15):
            _, writer = await asyncio.open_connection("127.0.0.1", bridge.feed_port)
            writer.close()
        await asyncio.to_thread(bridge.wait_for, lambda: _stormed(bridge) > 0, _SECONDS, "refuse")
        assert bridge.get("/healthz")[0] == 200
        again = await _until_let_in(bridge)
        again.close()
        bridge.stop()


def _stormed(bridge: BridgeProcess) -> float:
    return bridge.metrics().total("bridge_refused_total", reason="too-many-per-second")
