"""Live events beside a backfill of many blocks: does it hold them up, and how fast is it?

    python -m tests.bench.backfill

A bridge with a NATS server gets 500 events a second; a simulated node (`emit`, a process of its own)
grows a chain of which nearly all was lost, and serves its API. The latency of the live events, from
their receipt (`recordedtime`) until the server has stored them, is taken alone, while blocks are
fetched, and while their entries are.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path
from statistics import quantiles
from typing import Any

import nats
from nats.js.api import AckPolicy, ConsumerConfig

from tests.brokers.nats import NatsBroker
from tests.brokers.process import free_port
from tests.support.bridge_process import BridgeProcess
from tests.support.maker import Maker

__all__ = ["measure"]

_PER_SECOND = 500
_TURNS = 100
"""In a second."""
_PHASE_SECONDS = 15
_FETCH = 1_000
_MOST_SECONDS = 300
_NODE_BLOCKS_PER_SECOND = 4_244


async def _send(port: int) -> None:
    """Send events evenly until cancelled."""
    maker = Maker(9)
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    with closing(writer):
        began = time.monotonic()
        for turn in range(1, 10**9):
            writer.write(b"".join(maker.commit() for _ in range(_PER_SECOND // _TURNS)))
            await writer.drain()
            await asyncio.sleep(max(0.0, began + turn / _TURNS - time.monotonic()))


async def _latencies(url: str) -> list[tuple[float, float]]:
    """Return when each live event was accepted (s), and how long it took to be stored (ms)."""
    found = []
    client = await nats.connect(url)
    try:
        stream = client.jetstream()
        config = ConsumerConfig(ack_policy=AckPolicy.NONE, filter_subject="factom.entry-commit")
        subscription = await stream.pull_subscribe("", stream="FACTOM", config=config)
        left = (await subscription.consumer_info()).num_pending
        while left:
            for message in await subscription.fetch(min(_FETCH, left), timeout=10):
                left = message.metadata.num_pending
                # What is recovered out of blocks names no node.
                if message.headers and "ce-nodeidentity" in message.headers:
                    accepted = datetime.fromisoformat(message.headers["ce-recordedtime"])
                    stored = message.metadata.timestamp
                    took = (stored - accepted).total_seconds() * 1000
                    found.append((accepted.timestamp(), took))
    finally:
        await client.close()
    return found


def _told(latencies: list[tuple[float, float]], first: float, last: float) -> dict[str, float]:
    """Return the latencies of what was accepted from `first` to `last`."""
    taken = [took for accepted, took in latencies if first <= accepted < last]
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
            sending = asyncio.create_task(_send(bridge.feed_port))
            await asyncio.sleep(3)
            marks = [time.time()]
            await asyncio.sleep(_PHASE_SECONDS)
            marks.append(time.time())
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
                marks.append(time.time())
                seconds = await _until(bridge, 0)
                marks.append(time.time())
                await asyncio.sleep(_PHASE_SECONDS)
                marks.append(time.time())
            finally:
                node.kill()
                node.wait()
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
            await asyncio.sleep(1)
            bridge.stop()
        latencies = await _latencies(broker.url)
    alone = _told(latencies, marks[0], marks[1])
    fetching = _told(latencies, marks[2], marks[3])
    entries = _told(latencies, marks[3], marks[4])
    return {
        "blocks": blocks,
        "alone": alone,
        "while blocks come": fetching,
        "while entries come": entries,
        "a real node's replay, blocks/s (feed.md, section 8)": _NODE_BLOCKS_PER_SECOND,
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
