"""A recording played into a running bridge with both brokers, and what consumers then read."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path

from tests.brokers.kafka import KafkaBroker
from tests.brokers.nats import NatsBroker
from tests.support.bridge_process import BridgeProcess
from tests.support.captures import Capture
from tests.support.consumers import Read, fetch_from_nats, read_stream, read_topics

__all__ = ["KINDS", "Published", "replayed"]

KINDS = {
    "chainCommit": "chain-commit",
    "entryCommit": "entry-commit",
    "entryReveal": "entry-reveal",
    "stateChange": "state-change",
    "directoryBlockCommit": "directory-block-commit",
    "directoryBlockAnchor": "directory-block-anchor",
    "processListEvent": "process-list-event",
    "nodeMessage": "node-message",
}
"""Member of the feed to kind, as the contract has them."""

_SECONDS = 60


@dataclass(frozen=True)
class Published:
    """What two independent consumers read, in the order in which the brokers hold it."""

    stream: list[Read]
    topics: dict[str, list[Read]]
    refused: dict[str, float]
    """Input that the bridge gave up, by reason."""


async def _redeemed(read: Read, url: str) -> Read:
    """Return `read` with its data fetched, if it is a claim check; the copy must be the one told."""
    reference = read.attributes.get("dataref")
    if reference is None:
        return read
    data = await fetch_from_nats(url, reference)
    assert read.attributes["datasize"] == str(len(data))
    assert read.attributes["datasha256"] == hashlib.sha256(data).hexdigest()
    return read._replace(data=data)


async def replayed(
    capture: Capture,
    folder: Path,
    kafka: KafkaBroker,
    nats: NatsBroker,
    has_gap: bool = False,
    **environ: str,
) -> Published:
    """Play `capture` over its own transport, wait until all is published, and read it back."""
    name = f"{capture.name}{'-'.join(environ.values())}"
    environ |= {
        "BRIDGE_PREFIX": name,
        "BRIDGE_NATS__STREAM": name,
        "BRIDGE_NATS__SERVERS": nats.url,
        "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap,
        "BRIDGE_TRACKER__GRACE_SECONDS": "0.5",
    }
    events = len(capture.events())
    bridge = BridgeProcess(folder, environ)
    await asyncio.to_thread(bridge.start)
    try:
        await asyncio.to_thread(bridge.wait_ready)
        await capture.play(bridge.feed_port)

        def published() -> bool:
            metrics = bridge.metrics()
            return (
                metrics.accepted >= events
                and metrics.longest_lag == 0
                and metrics.total("bridge_gaps_open") == has_gap
            )

        await asyncio.to_thread(bridge.wait_for, published, _SECONDS, "publish the recording")
        refused = bridge.metrics().by("bridge_refused_total", "reason")
        # Blocks of more than 1 MB are too large for a NATS server with its default limit.
        stream = [await _redeemed(read, nats.url) for read in await read_stream(nats.url, name)]
        return Published(stream, await read_topics(kafka.bootstrap, name), refused)
    finally:
        await asyncio.to_thread(bridge.stop)
