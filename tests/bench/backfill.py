"""Live events beside a backfill of many blocks: does it hold them up, and how fast is it?

    python -m tests.bench.backfill

A bridge with a NATS server gets 500 events a second; a simulated node (`emit`, a process of its own)
grows a chain of which nearly all was lost, and serves its API. The latency of the live events, from
the commit to the journal (`recordedtime`) until a consumer has them, is taken alone, while blocks are
fetched, and while their entries are.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import datetime
from pathlib import Path
from statistics import quantiles
from typing import Any

import nats

from tests.bench.maker import Maker
from tests.brokers.nats import NatsBroker
from tests.brokers.process import free_port
from tests.support.bridge_process import BridgeProcess

__all__ = ["measure"]

_PER_SECOND = 500
_TURNS = 100
"""In a second."""
_ALONE_SECONDS = 15
_MOST_SECONDS = 300


class _Live:
    """Sends events evenly, and notes how long each took until it was here again."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.milliseconds: list[float] = []

    @asynccontextmanager
    async def running(self, url: str) -> AsyncIterator[None]:
        client = await nats.connect(url)
        await client.subscribe("factom.entry-commit", cb=self._came)
        sending = asyncio.create_task(self._send())
        try:
            yield
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            await client.close()

    async def _came(self, message: Any) -> None:
        # What is recovered out of blocks names no node.
        if "ce-nodeidentity" in message.headers:
            at = datetime.fromisoformat(message.headers["ce-recordedtime"]).timestamp()
            self.milliseconds.append((time.time() - at) * 1000)

    async def _send(self) -> None:
        maker = Maker(9)
        _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        with closing(writer):
            began = time.monotonic()
            for turn in range(1, 10**9):
                writer.write(b"".join(maker.commit() for _ in range(_PER_SECOND // _TURNS)))
                await writer.drain()
                await asyncio.sleep(max(0.0, began + turn / _TURNS - time.monotonic()))

    def take(self) -> dict[str, float]:
        """Return the latencies since the last time, in milliseconds."""
        taken, self.milliseconds = self.milliseconds, []
        cuts = quantiles(taken, n=100)
        return {"events": len(taken), "p50_ms": round(cuts[49], 2), "p99_ms": round(cuts[98], 2)}


def _gaps(bridge: BridgeProcess) -> tuple[int, int]:
    metrics = bridge.metrics()
    return int(metrics.total("bridge_gaps_open")), int(metrics.total("bridge_heights_missing"))


async def _until(bridge: BridgeProcess, open_gaps: int) -> float:
    began = time.monotonic()
    while (await asyncio.to_thread(_gaps, bridge))[0] != open_gaps:
        if time.monotonic() - began > _MOST_SECONDS:
            raise RuntimeError(f"{_gaps(bridge)} gaps and heights are left; {bridge.tail}")
        await asyncio.sleep(0.1)
    return time.monotonic() - began


async def _measure(blocks: int, folder: Path) -> dict[str, Any]:
    api = free_port()
    environ = {
        "BRIDGE_NODE__URL": f"http://127.0.0.1:{api}/v2",
        "BRIDGE_NODE__REQUESTS_PER_SECOND": "1000",
        "BRIDGE_TRACKER__GRACE_SECONDS": "1",
        "BRIDGE_LOG__LEVEL": "error",
    }
    with NatsBroker(folder / "nats") as broker:
        environ["BRIDGE_NATS__SERVERS"] = broker.url
        with BridgeProcess(folder / "bridge", environ) as bridge:
            await asyncio.to_thread(bridge.wait_ready)
            live = _Live(bridge.feed_port)
            async with live.running(broker.url):
                await asyncio.sleep(3)
                live.take()
                await asyncio.sleep(_ALONE_SECONDS)
                alone = live.take()
                to = f"127.0.0.1:{bridge.feed_port}"
                node = subprocess.Popen(
                    [
                        *(sys.executable, "-m", "bridge", "emit", "--to", to, "--stay"),
                        *("--blocks", str(blocks), "--block-seconds", "0"),
                        *("--fault", f"dark=3+{blocks - 4}", "--api-port", str(api)),
                    ],
                    stdout=subprocess.DEVNULL,
                )
                try:
                    await _until(bridge, 1)
                    live.take()
                    seconds = await _until(bridge, 0)
                    fetching = live.take()
                    await asyncio.sleep(_ALONE_SECONDS)
                    entries = live.take()
                finally:
                    node.kill()
                    node.wait()
            bridge.stop()
    return {
        "blocks": blocks,
        "alone": alone,
        "while blocks come": fetching,
        "while entries come": entries,
        "heights_per_second": round((blocks - 4) / seconds, 1),
        "p99_ratio": round(fetching["p99_ms"] / alone["p99_ms"], 2),
        "p99_ratio_entries": round(entries["p99_ms"] / alone["p99_ms"], 2),
    }


def measure(blocks: int = 1_000) -> dict[str, Any]:
    """Return the figures of one run."""
    with tempfile.TemporaryDirectory(prefix="bench-backfill-") as folder:
        return asyncio.run(_measure(blocks, Path(folder)))


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
