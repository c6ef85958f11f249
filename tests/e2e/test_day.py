"""A simulated node's day of 144 blocks, through the bridge into both brokers, proven complete."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bridge.model import Kind
from tests.brokers.kafka import KafkaBroker
from tests.brokers.nats import NatsBroker
from tests.brokers.process import free_port
from tests.support.bridge_process import BridgeProcess, run_command
from tests.support.consumers import Read, read_stream

pytestmark = [pytest.mark.brokers, pytest.mark.timeout(300)]

_BLOCKS = 144
_LONGEST_SECONDS = 120


def _environ(name: str, kafka: KafkaBroker, nats: NatsBroker, **more: str) -> dict[str, str]:
    return {
        "BRIDGE_PREFIX": name,
        "BRIDGE_NATS__STREAM": name,
        "BRIDGE_NATS__SERVERS": nats.url,
        "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap,
        "BRIDGE_TRACKER__GRACE_SECONDS": "1",
        "BRIDGE_NODE__REPLAY_SECONDS": "1",
        "BRIDGE_NODE__HEIGHTS_SECONDS": "1",
        "BRIDGE_NODE__REQUESTS_PER_SECOND": "1000",
        **more,
    }


@asynccontextmanager
async def _emitting(bridge: BridgeProcess, *arguments: str) -> AsyncIterator[None]:
    """Run `emit` to its end, or beside the body if it is to stay."""
    to = f"127.0.0.1:{bridge.feed_port}"
    node = subprocess.Popen(
        [
            *(sys.executable, "-m", "bridge", "emit", "--to", to, "--blocks", str(_BLOCKS)),
            *("--block-seconds", "0", *arguments),
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        if "--stay" not in arguments:
            assert await asyncio.to_thread(node.wait, _LONGEST_SECONDS) == 0
        yield
    finally:
        node.kill()
        node.wait()


async def _proven(bridge: BridgeProcess) -> str:
    done = await asyncio.to_thread(
        run_command,
        *("verify", "--from", "1", "--to", str(_BLOCKS)),
        environ=bridge.environ,
        seconds=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(rf"heights +{_BLOCKS} +0 ", done.stdout)) == 2, done.stdout
    return done.stdout


async def test_a_day_is_complete_in_both_brokers_within_two_minutes(
    tmp_path: Path, kafka: KafkaBroker, nats_server: NatsBroker
) -> None:
    began = time.monotonic()
    with BridgeProcess(tmp_path, _environ("day", kafka, nats_server)) as bridge:
        await asyncio.to_thread(bridge.wait_ready)
        async with _emitting(bridge):
            await bridge.delivered(_BLOCKS, seconds=_LONGEST_SECONDS)
        await _proven(bridge)
        recovered = bridge.metrics().total("bridge_events_recovered_total")
        bridge.stop()
    assert recovered == 0, "nothing was lost"
    assert time.monotonic() - began < _LONGEST_SECONDS


async def test_what_two_percent_of_losses_take_away_is_fetched(
    tmp_path: Path, kafka: KafkaBroker, nats_server: NatsBroker
) -> None:
    api = free_port()
    url = f"http://127.0.0.1:{api}/v2"
    with BridgeProcess(
        tmp_path, _environ("lossy-day", kafka, nats_server, BRIDGE_NODE__URL=url)
    ) as bridge:
        await asyncio.to_thread(bridge.wait_ready)
        faults = ("--fault", "drop=2", "--api-port", str(api), "--stay")
        async with _emitting(bridge, *faults):
            deadline = time.monotonic() + _LONGEST_SECONDS
            while left := _left(await read_stream(nats_server.url, "lossy-day")):
                assert time.monotonic() < deadline, f"{left}\n{bridge.tail}"
                await asyncio.sleep(1)
            await bridge.delivered(_BLOCKS)
        proof = await _proven(bridge)
        entries = bridge.metrics().total("bridge_backfill_entries_total")
        bridge.stop()
    # Each commit is told twice, and rarely lost twice; each reveal is told once.
    assert entries > 10, "reveals were lost"
    assert "not provable without entry blocks" not in proof


def _left(read: list[Read]) -> list[str]:
    """Return the heights whose last receipt does not say that all is there."""
    last = {
        int(each.attributes["blockheight"]): json.loads(each.data)
        for each in read
        if each.kind == Kind.BLOCK_RECEIPT
    }
    return [
        f"{height}: {last.get(height)}"
        for height in range(1, _BLOCKS + 1)
        if height not in last
        # The block below the first is not there, so its links cannot be proven.
        or not (last[height].get("complete") or height == 1)
        or "revealsExpected" not in last[height]
    ]
