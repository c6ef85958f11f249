"""`gaps` and `backfill` beside a running bridge, and BRIDGE_NODE__BACKFILL_FROM."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

from tests.e2e.test_complete import last_receipts
from tests.support.bridge_process import BridgeProcess, run_command
from tests.support.consumers import read_stream
from tests.support.factomd import Factomd

_FAST = {
    "BRIDGE_FORMAT": "protobuf",
    "BRIDGE_NODE__REPLAY_SECONDS": "1",
    "BRIDGE_NODE__REQUESTS_PER_SECOND": "1000",
    "BRIDGE_TRACKER__GRACE_SECONDS": "0.5",
}


async def _run(bridge: BridgeProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(run_command, *arguments, environ=bridge.environ)


async def test_a_gap_is_shown_and_the_past_is_fetched_on_demand(tmp_path: Path) -> None:
    node = Factomd.of_chain(30)
    node.tip = 22
    async with node.serve() as url:
        bridge = BridgeProcess(tmp_path, _FAST | {"BRIDGE_NODE__URL": url})
        await asyncio.to_thread(bridge.start)
        try:
            async with node.feeding(bridge.feed_port):
                node.unreadable.update(range(13, 20))
                await node.live(10, 11, 12)
                assert "no gaps" in (await _run(bridge, "gaps")).stdout
                await node.live(20, 21, 22)
                await asyncio.to_thread(
                    bridge.wait_for, lambda: _open(bridge) == 1, 20, "open the gap"
                )
                shown = await _run(bridge, "gaps")
                checked = await _run(bridge, "gaps", "--check", "--json")
                assert shown.returncode == 0, shown.stderr
                assert "13-19" in shown.stdout
                assert checked.returncode == 1
                (gap,) = json.loads(checked.stdout)["gaps"]
                assert (gap["first"], gap["last"], gap["missing"]) == (13, 19, [[13, 19]])

                fetched = await _run(bridge, "backfill", "0", "9")
                assert fetched.returncode == 0, fetched.stdout + fetched.stderr
                node.unreadable.clear()
                filled = await _run(bridge, "backfill", "0", "22")
                assert filled.returncode == 0, filled.stdout + filled.stderr
                assert "no gaps" in (await _run(bridge, "gaps", "--check")).stdout
            await asyncio.to_thread(bridge.stop)
        finally:
            bridge.kill()
    away = await _run(bridge, "gaps")
    assert away.returncode == 69
    assert "no bridge answers" in away.stderr


async def test_the_whole_past_is_fetched_and_ends_with_a_receipt_for_each_height(
    tmp_path: Path,
) -> None:
    node = Factomd.of_chain(40)
    async with node.serve() as url:
        environ = _FAST | {"BRIDGE_NODE__URL": url, "BRIDGE_NODE__BACKFILL_FROM": "0"}
        bridge = BridgeProcess(tmp_path, environ)
        await asyncio.to_thread(bridge.start)
        try:
            await asyncio.to_thread(bridge.wait_ready)
            async with node.feeding(bridge.feed_port):
                async with asyncio.timeout(60):
                    while len(done := await _complete(bridge)) < 40:
                        await asyncio.sleep(0.3)
            await asyncio.to_thread(bridge.stop)
        finally:
            bridge.kill()
    assert done == set(range(40))


def _open(bridge: BridgeProcess) -> float:
    return bridge.metrics().total("bridge_gaps_open")


async def _complete(bridge: BridgeProcess) -> set[int]:
    read = await read_stream(f"nats://127.0.0.1:{bridge.nats_port}")
    return {
        height
        for height, receipt in last_receipts(read).items()
        if receipt.complete and receipt.HasField("reveals_expected")
    }
