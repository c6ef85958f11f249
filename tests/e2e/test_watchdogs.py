"""Brokers that answer and do nothing: noticed, told everywhere, restarted where they are ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nats.errors
import psutil
import pytest

from tests.brokers.kafka import KafkaBroker
from tests.brokers.nats import NatsBroker
from tests.brokers.process import Broker
from tests.support.bridge_process import BridgeProcess
from tests.support.consumers import nats_client, read_stream
from tests.support.journal_file import event_id
from tests.support.maker import Maker
from tests.support.sinks import Sinks

pytestmark = pytest.mark.brokers

_IMPATIENT = {"BRIDGE_NATS__TIMEOUT_SECONDS": "1"}
_SECONDS = 40


async def _wedge(url: str, stream: str, *, wedged: bool) -> None:
    """Have the stream take no more and say nothing of it, as with a full disk; or all again.

    The server answers all other questions meanwhile.
    """
    async with nats_client(url) as client:
        jetstream = client.jetstream()
        info = await jetstream.stream_info(stream)
        most = info.state.messages if wedged else -1
        await jetstream.update_stream(info.config.evolve(no_ack=wedged, max_msgs=most))


async def _unwedge_patiently(url: str, stream: str) -> None:
    """As the bridge has it killed again and again meanwhile."""
    async with asyncio.timeout(_SECONDS):
        while True:
            try:
                await _wedge(url, stream, wedged=False)
            except (nats.errors.Error, OSError):
                await asyncio.sleep(0.1)
            else:
                return


async def _send(bridge: BridgeProcess, frames: list[bytes]) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", bridge.feed_port)
    writer.write(b"".join(frames))
    await writer.drain()
    writer.close()
    await writer.wait_closed()


class _Seen:
    """What a part was said to be, at each look."""

    def __init__(self, bridge: BridgeProcess, part: str) -> None:
        self._bridge, self._part = bridge, part
        self.states: dict[str, str] = {}
        self.ready_while_unacknowledged = False

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        def looked() -> bool:
            code, body = self._bridge.get("/readyz")
            part: dict[str, Any] = json.loads(body)["parts"][self._part]
            self.states[part["state"]] = part["cause"]
            self.ready_while_unacknowledged |= part["state"] == "sink_wedged" and code == 200
            assert self._bridge.get("/healthz")[0] == 200
            return holds()

        await asyncio.to_thread(self._bridge.wait_for, looked, _SECONDS, what)


def _server(bridge: BridgeProcess) -> int | None:
    """Return the process id of its one child, if that is up."""
    found = [child.pid for child in psutil.Process(bridge.pid).children(recursive=True)]
    return found[0] if found else None


def _wedged(bridge: BridgeProcess) -> int:
    return int(bridge.metrics().total("bridge_sink_errors_total", sink="nats", code="sink_wedged"))


def _warned(bridge: BridgeProcess) -> list[dict[str, Any]]:
    return [line for line in bridge.logged() if "acknowledges nothing" in str(line)]


async def test_a_wedged_embedded_server_is_restarted_and_nothing_is_lost(tmp_path: Path) -> None:
    maker = Maker(1)
    frames = [maker.commit() for _ in range(60)]
    with BridgeProcess(tmp_path, _IMPATIENT) as bridge:
        await asyncio.to_thread(bridge.wait_ready)
        url = f"nats://127.0.0.1:{bridge.nats_port}"
        await _send(bridge, frames[:30])
        await bridge.delivered(30)
        first = _server(bridge)
        await _wedge(url, "FACTOM", wedged=True)
        await _send(bridge, frames[30:])
        seen = _Seen(bridge, "nats")
        await seen.until(lambda: _server(bridge) not in {first, None}, "restart its server")
        await asyncio.to_thread(
            bridge.wait_for,
            lambda: bridge.ready()["parts"]["embedded"]["ready"],
            _SECONDS,
            "have its server again",
        )
        await _unwedge_patiently(url, "FACTOM")
        await bridge.delivered(60)
        await asyncio.to_thread(bridge.wait_ready)
        assert _wedged(bridge) >= 1
        assert _warned(bridge)
        read = [message.id for message in await read_stream(url)]
        bridge.stop()
    assert read == [event_id(frame[5:])[1] for frame in frames]


async def test_a_wedged_server_that_is_not_ours_is_told_and_never_called_ready(
    tmp_path: Path, nats_server: NatsBroker
) -> None:
    stream = "wedged"
    environ = {
        **_IMPATIENT,
        "BRIDGE_PREFIX": stream,
        "BRIDGE_NATS__STREAM": stream,
        "BRIDGE_NATS__SERVERS": nats_server.url,
    }
    maker = Maker(2)
    frames = [maker.commit() for _ in range(20)]
    with BridgeProcess(tmp_path, environ) as bridge:
        await asyncio.to_thread(bridge.wait_ready)
        await _send(bridge, frames[:10])
        await bridge.delivered(10)
        await _wedge(nats_server.url, stream, wedged=True)
        await _send(bridge, frames[10:])
        seen = _Seen(bridge, "nats")
        await seen.until(lambda: _wedged(bridge) >= 1, "notice that it is wedged")
        await seen.until(lambda: "sink_wedged" in seen.states, "tell that it is wedged")
        assert "acknowledges nothing" in seen.states["sink_wedged"]
        assert not seen.ready_while_unacknowledged
        assert _warned(bridge)
        await _wedge(nats_server.url, stream, wedged=False)
        await bridge.delivered(20)
        await asyncio.to_thread(bridge.wait_ready)
        bridge.stop()
    read = [message.id for message in await read_stream(nats_server.url, stream)]
    assert read == [event_id(frame[5:])[1] for frame in frames]


@pytest.mark.parametrize("which", ["nats killed", "nats hanging", "kafka hanging"])
async def test_a_broker_that_is_gone_is_told_everywhere_and_the_bridge_is_well(
    tmp_path: Path, kafka: KafkaBroker, which: str
) -> None:
    part, _, how = which.partition(" ")
    with NatsBroker(tmp_path / "own-nats") as own:
        sinks = Sinks(kafka, own, f"gone-{part}-{how}")
        broker: Broker = own if part == "nats" else kafka
        with BridgeProcess(tmp_path / "bridge", sinks.environ) as bridge:
            await asyncio.to_thread(bridge.wait_ready)
            assert bridge.metrics().total("bridge_sink_up", sink=part) == 1
            (broker.kill if how == "killed" else broker.pause)()
            try:
                await _send(bridge, [Maker(3).commit()])
                seen = _Seen(bridge, part)
                await seen.until(lambda: not bridge.ready()["parts"][part]["ready"], "tell of it")
                code, body = bridge.get("/readyz")
                assert code == 503
                assert json.loads(body)["parts"][part]["cause"]
                assert bridge.metrics().total("bridge_sink_up", sink=part) == 0
                other = {"nats": "kafka", "kafka": "nats"}[part]
                assert json.loads(body)["parts"][other]["ready"]
                assert any(
                    line["level"] == "warning" and line.get("sink") == part
                    for line in bridge.logged()
                )
            finally:
                broker.start() if how == "killed" else broker.resume()
            await bridge.delivered(1)
            await asyncio.to_thread(bridge.wait_ready)
            bridge.stop()
