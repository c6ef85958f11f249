"""The composition root: every part is built here, once, and the whole bridge is on this page."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge import log
from bridge.core.render import Renderer
from bridge.core.routing import ChainFilter, Routes
from bridge.embedded import open_embedded
from bridge.health import Health
from bridge.journal import open_journal
from bridge.metrics import Metrics
from bridge.receivers.tcp import open_tcp
from bridge.receivers.udp import open_udp
from bridge.settings import Settings
from bridge.sinks.kafka import KafkaSink
from bridge.sinks.nats import NatsSink
from bridge.ports import Sink
from bridge.stages import track
from bridge.stages.intake import Intake
from bridge.stages.publish import Lane, Rendering
from bridge.stages.track import Tracker
from bridge.status import open_status

__all__ = ["Running", "build_sinks", "routes_of", "running", "serve"]

_ACKNOWLEDGE_SECONDS = 5
_log = log.get("app")


@dataclass(frozen=True)
class Running:
    """The bridge while it runs."""

    settings: Settings
    ports: dict[str, int]
    health: Health
    metrics: Metrics
    lanes: tuple[Lane, ...]
    failed: asyncio.Future[None]
    """Done when a part failed, with its error."""


def routes_of(settings: Settings) -> Routes:
    """Return where the kinds go."""
    return Routes(settings.prefix, settings.topics.names, settings.off)


def build_sinks(settings: Settings, routes: Routes, epoch: str) -> list[Sink]:
    """Return the sinks that are configured, not yet open."""
    sinks: list[Sink] = []
    if settings.kafka.bootstrap_servers:
        sinks.append(KafkaSink(settings.kafka, routes, epoch))
    if settings.nats.servers:
        sinks.append(NatsSink(settings.nats, routes, epoch))
    return sinks


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    """Run the bridge. Leaving stops it in order: no more input, commit what was read, wait a while
    for acknowledgements, write the checkpoints down, let go of the brokers.

    Raises:
        BridgeError: a part could not be started, with the exit code that says why.
    """
    health, metrics, routes = Health(), Metrics(), routes_of(settings)
    feed = settings.feed
    async with AsyncExitStack() as resources:
        enter = resources.enter_async_context
        journal = await enter(open_journal(settings.journal, metrics))
        tasks = _Tasks()
        intake = Intake(
            journal,
            metrics,
            health,
            network=settings.network,
            max_bytes=feed.max_buffered_bytes,
            delay_seconds=settings.journal.commit_delay_ms / 1000,
        )
        embedded = None
        if settings.embeds_nats:
            embedded = await enter(open_embedded(settings.embedded, settings.journal.dir, health))
            nats = settings.nats.model_copy(update={"servers": (embedded.url,)})
            settings = settings.model_copy(update={"nats": nats})
        sinks = build_sinks(settings, routes, journal.epoch)
        journal.register([track.READER, *(sink.name for sink in sinks)])
        renderer = Renderer(
            network=settings.network,
            epoch=journal.epoch,
            routes=routes,
            chains=ChainFilter.of(bytes.fromhex(chain) for chain in settings.chains),
            format=settings.format,
            json_bytes=settings.json_bytes,
        )
        rendering = Rendering(renderer)
        lanes = tuple(Lane(journal, rendering, sink, metrics, health) for sink in sinks)
        tracker = Tracker(journal, metrics, network=settings.network)
        ports: dict[str, int] = {}
        intake_task = tasks.start("intake", intake.run())
        receiving = await enter(AsyncExitStack())
        port = feed.port
        if "tcp" in feed.protocols:
            tcp, port = await receiving.enter_async_context(open_tcp(feed, intake, metrics))
            intake.shed = tcp.shed
            tasks.start("tcp", tcp.watch())
        if "udp" in feed.protocols:
            udp, port = await receiving.enter_async_context(open_udp(feed, port, intake, metrics))
            tasks.start("udp", udp.watch())
        ports["feed"] = port
        health.told("feed", "receiving", ready=True)
        ports["status"] = await enter(open_status(settings.status, health, metrics))
        if embedded is not None:
            await embedded.start()
            ports["nats"] = embedded.port
            tasks.start("embedded", embedded.watch())
        _write_ports(settings.journal.dir / "ports.json", ports)
        tasks.start("journal", journal.tend())
        tasks.start("tracker", tracker.run())
        following = [tasks.start(lane.name, lane.run()) for lane in lanes]
        _log.info("receiving", **{f"{name}_port": number for name, number in ports.items()})
        try:
            yield Running(settings, ports, health, metrics, lanes, tasks.failed)
        finally:
            await receiving.aclose()
            if not tasks.failed.done():
                await _within(_ACKNOWLEDGE_SECONDS, intake.drained())
                await _within(_ACKNOWLEDGE_SECONDS, _all_drained(lanes))
            await tasks.cancel(*following)
            if not tasks.failed.done():
                await _within(_ACKNOWLEDGE_SECONDS, journal.flush())
            await tasks.cancel()
            assert intake_task.done()


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run the bridge until `stop` is set or a part fails.

    Raises:
        BridgeError: as `running`, or what a part failed with.
    """
    async with running(settings) as bridge:
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait((stopped, bridge.failed), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if bridge.failed.done():
            bridge.failed.result()
        _log.info("stopping")


class _Tasks:
    """The parts' tasks. The first that fails is told; a supervisor restarts the process."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and task.exception() and not self.failed.done():
            self.failed.set_exception(task.exception())  # type: ignore[arg-type]

    async def cancel(self, *tasks: asyncio.Task[Any]) -> None:
        chosen = tasks or tuple(self._tasks)
        for task in chosen:
            task.cancel()
        await asyncio.gather(*chosen, return_exceptions=True)


async def _within(seconds: float, work: Awaitable[Any]) -> None:
    try:
        await asyncio.wait_for(work, seconds)
    except TimeoutError:
        _log.warning("not finished in time; it goes on at the next start")


async def _all_drained(lanes: tuple[Lane, ...]) -> None:
    await asyncio.gather(*(lane.drained() for lane in lanes))


def _write_ports(path: Path, ports: dict[str, int]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(ports) + "\n", encoding="utf-8")
    os.replace(part, path)
