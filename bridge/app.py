"""The composition root: every part is built here, once, and the whole bridge is on this page."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bridge import log
from bridge.core.alerts import storage_alert
from bridge.core.groups import own_run
from bridge.core.heights import Bounds
from bridge.core.render import Renderer
from bridge.core.routing import ChainFilter, Routes
from bridge.embedded import open_embedded
from bridge.errors import StorageFull, StorageUnusable
from bridge.health import Health
from bridge.journal import Journal, open_journal, watch_disk
from bridge.metrics import Metrics
from bridge.model import Kind
from bridge.node import open_node
from bridge.ports import Sink
from bridge.receivers.tcp import open_tcp
from bridge.receivers.udp import open_udp
from bridge.settings import FeedSettings, Settings, TrackerSettings
from bridge.sinks.kafka import KafkaSink
from bridge.sinks.nats import NatsSink
from bridge.stages import track
from bridge.stages.aside import Aside
from bridge.stages.backfill import Backfill
from bridge.stages.intake import Intake
from bridge.stages.publish import Lane
from bridge.stages.rendering import Rendering
from bridge.stages.track import Tracker
from bridge.status import open_status
from bridge.status.tracking import routes as tracking_routes

__all__ = ["Running", "build_sinks", "routes_of", "running", "serve"]

_ACKNOWLEDGE_SECONDS = 5
_CANCEL_SECONDS = 0.5
_STEP_BYTES = 1024 * 1024
"""About how much a sink is sent at a time, as `portions.weight` counts: more is memory. Of events of 1 KB
JetStream gets about the thousand that it takes at once."""
_KAFKA_STEP_BYTES = 2 * 1024 * 1024
"""To Kafka as protobuf: each step costs. As JSON the same events are two to three times as large."""

_BUSY_LAG = 5_000
"""Events that even the fastest sink has yet to take, above which backfill holds back."""

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
    """Run the bridge.

    Leaving stops it in order: no more input, commit what was read, wait a while for
    acknowledgements, write the checkpoints down, let go of the brokers.

    Raises:
        BridgeError: a part could not be started, with the exit code that says why.
    """
    health, metrics, routes = Health(), Metrics(), routes_of(settings)
    async with AsyncExitStack() as resources:
        enter = resources.enter_async_context
        journal = await enter(open_journal(settings.journal, metrics))
        embedded = None
        if settings.embeds_nats:
            embedded = await enter(open_embedded(settings.embedded, settings.journal.dir, health))
            settings = _served_by(settings, embedded.url)
        sinks = build_sinks(settings, routes, journal.epoch)
        journal.register([track.READER, *(sink.name for sink in sinks)])
        aside = await enter(aclosing(Aside(_renderer(settings, routes, journal.epoch))))
        rendering = Rendering(aside.renderer, len(sinks), journal.flight, aside)
        lanes = tuple(
            Lane(
                journal,
                rendering,
                sink,
                metrics,
                health,
                network=settings.network,
                step_bytes=_step_bytes(sink, settings),
                when_wedged=embedded.end if embedded is not None else lambda: None,
            )
            for sink in sinks
        )
        intake = Intake(
            journal,
            metrics,
            health,
            network=settings.network,
            max_bytes=settings.feed.max_buffered_bytes,
            delay_seconds=settings.journal.commit_delay_ms / 1000,
        )
        tracker = Tracker(
            journal,
            metrics,
            network=settings.network,
            bounds=_bounds(settings.tracker),
            flight=journal.flight,
            aside=aside,
            make_way=intake.make_way,
        )
        if journal.cut_off:
            _tell_cut_off(journal.cut_off, metrics, intake, settings.network)
        # From here on things run: the feed first, so that no broker delays it.
        tasks = _Tasks(metrics)
        tasks.start("intake", intake.run())
        receiving = await enter(AsyncExitStack())
        ports = {"feed": await _receive(settings.feed, intake, metrics, tasks, receiving)}
        health.told("feed", "receiving", ready=True)
        pages = partial(tracking_routes, tracking=tracker)
        ports["status"] = await enter(open_status(settings.status, health, metrics, [pages]))
        if embedded is not None:
            ports["nats"] = embedded.port
            await embedded.start()
            tasks.start("embedded", embedded.watch())
        _write_ports(settings.journal.dir / "ports.json", ports)
        tasks.start("journal", journal.tend())
        tasks.start("disk", watch_disk(settings.journal.dir, health))
        tasks.start("tracker", tracker.run())
        for lane in lanes:
            tasks.start(lane.name, lane.run())
        if settings.node.url is not None:
            node = await enter(
                open_node(settings.node.url, requests_per_second=settings.node.requests_per_second)
            )
            backfill = Backfill(
                node,
                tracker,
                journal,
                metrics,
                page_heights=settings.node.page_heights,
                heights_seconds=settings.node.heights_seconds,
                backfill_from=settings.node.backfill_from,
                receipts=settings.node.receipts,
                arrival_seconds=settings.node.replay_seconds,
                busy=lambda: min(lane.lag for lane in lanes) > _BUSY_LAG,
            )
            tracker.sought = backfill.sought
            tasks.start("backfill", backfill.run())
        _log.info("receiving", **{f"{name}_port": number for name, number in ports.items()})
        try:
            yield Running(settings, ports, health, metrics, lanes, tasks.failed)
        finally:
            await receiving.aclose()
            if not tasks.failed.done():
                await _within(_ACKNOWLEDGE_SECONDS, _drain(intake, tasks, lanes))
            await tasks.cancel()
            if not tasks.failed.done():
                await _within(_ACKNOWLEDGE_SECONDS, _flush(journal))


def _served_by(settings: Settings, url: str) -> Settings:
    """Return `settings` with the embedded server as the only NATS server."""
    nats = settings.nats.model_copy(update={"servers": (url,)})
    return settings.model_copy(update={"nats": nats})


def _tell_cut_off(lost: int, metrics: Metrics, intake: Intake, network: str) -> None:
    metrics.journal_cut_off(lost)
    now = time.time_ns()
    detail = (
        f"the end of the journal was damaged and {lost} commits of it are lost; it is kept beside"
        " the journal as journal.db-wal.damaged"
    )
    alert = storage_alert(network, now, detail)
    intake.offer(own_run(Kind.GAP_ALERT, alert.SerializeToString(), now))


def _step_bytes(sink: Sink, settings: Settings) -> int:
    is_larger = sink.name == "kafka" and settings.format == "protobuf"
    return _KAFKA_STEP_BYTES if is_larger else _STEP_BYTES


def _bounds(settings: TrackerSettings) -> Bounds:
    return Bounds(
        grace=settings.grace_seconds,
        shortest_stall=settings.shortest_stall_seconds,
        longest_stall=settings.longest_stall_seconds,
    )


def _renderer(settings: Settings, routes: Routes, epoch: str) -> Callable[[], Renderer]:
    return partial(
        Renderer,
        network=settings.network,
        epoch=epoch,
        routes=routes,
        chains=ChainFilter.of(bytes.fromhex(chain) for chain in settings.chains),
        format=settings.format,
        json_bytes=settings.json_bytes,
    )


async def _receive(
    settings: FeedSettings, intake: Intake, metrics: Metrics, tasks: _Tasks, until: AsyncExitStack
) -> int:
    """Open the receivers on one port, and return it."""
    port = settings.port
    if "tcp" in settings.protocols:
        tcp, port = await until.enter_async_context(open_tcp(settings, intake, metrics))
        intake.shed = tcp.shed
        tasks.start("tcp", tcp.watch())
    if "udp" in settings.protocols:
        udp, port = await until.enter_async_context(open_udp(settings, port, intake, metrics))
        tasks.start("udp", udp.watch())
    return port


async def _flush(journal: Journal) -> None:
    try:
        await journal.flush()
    except StorageFull as error:
        _log.warning("checkpoints not written down", error=str(error))


async def _drain(intake: Intake, tasks: _Tasks, lanes: tuple[Lane, ...]) -> None:
    await intake.drained()
    # They write too, and go on where they were at the next start.
    await tasks.cancel("backfill", "tracker")
    await asyncio.gather(*(lane.drained() for lane in lanes))


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

    def __init__(self, metrics: Metrics) -> None:
        loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.failed: asyncio.Future[None] = loop.create_future()
        metrics.watch_tasks(lambda: len(asyncio.all_tasks(loop)))
        metrics.watch_log(log.failures)

    def start(self, name: str, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and task.exception() and not self.failed.done():
            self.failed.set_exception(task.exception())  # type: ignore[arg-type]

    async def cancel(self, *names: str) -> None:
        """Cancel those of `names`, or all, and return when they ended."""
        chosen = [task for task in self._tasks if not names or task.get_name() in names]
        while left := [task for task in chosen if not task.done()]:
            for task in left:
                task.cancel()
            # A client library may swallow a cancellation while it connects or closes.
            await asyncio.wait(left, timeout=_CANCEL_SECONDS)


async def _within(seconds: float, work: Awaitable[Any]) -> None:
    try:
        await asyncio.wait_for(work, seconds)
    except TimeoutError:
        _log.warning("not finished in time; it goes on at the next start")


def _write_ports(path: Path, ports: dict[str, int]) -> None:
    part = path.with_suffix(".part")
    try:
        part.write_text(json.dumps(ports) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise StorageUnusable(f"cannot write {path}: {error.strerror}") from error
