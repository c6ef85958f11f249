"""The simulated node as a program: a chain, a sender, an API if wanted, and a line of progress."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn

from bridge.emitter.api import Api, Minute, serve_api
from bridge.emitter.archive import Archive
from bridge.emitter.block import Load
from bridge.emitter.chain import Chain
from bridge.emitter.config import LiveFeedConfig
from bridge.emitter.faults import Dialler, Faults
from bridge.emitter.node import BLOCK_SECONDS, Node, Outlet
from bridge.emitter.sender import Sender, Timing
from bridge.errors import UsageError

__all__ = ["Faults", "Load", "Simulation", "feed_config", "run"]

_FIXED_START_MS = 1_767_225_600_000
"""2026-01-01: where a chain begins that grows as fast as possible, so that its bytes repeat."""
_REFRESH_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Simulation:
    """What to simulate."""

    config: LiveFeedConfig
    seed: int = 0
    first: int = 0
    """Height at which the chain begins; a genesis block at 0 is not emitted, as by nodes."""
    blocks: int | None = None
    """How many are emitted; None goes on until stopped."""
    block_seconds: float = BLOCK_SECONDS
    load: Load = field(default_factory=Load)
    faults: Faults = field(default_factory=Faults)
    api_port: int | None = None
    """None: no API; 0: a free port."""
    stays: bool = False
    """Whether the API is served on after the last block, until stopped."""
    gives_up: bool = False
    """Whether one failed attempt is enough; otherwise the node's patience counts."""


def feed_config(host: str, port: int, settings: Iterable[str] = ()) -> LiveFeedConfig:
    """Return the settings of a node that sends to `host` and `port`.

    Args:
        host: where the receiver listens.
        port: where the receiver listens.
        settings: properties of the node's section, such as `EventFormat=json`; a value that is not
            understood means the node's default, as it does to a node.

    Raises:
        UsageError: there is no such property.
    """
    flags: dict[str, str | int | bool] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        flags[name.strip().lower()] = value
    flags |= {"enablelivefeedapi": True, "eventreceiverhost": host, "eventreceiverport": port}
    try:
        return LiveFeedConfig.parse("", **flags)
    except TypeError as error:
        raise UsageError(str(error)) from error


async def run(simulation: Simulation, stop: asyncio.Event, console: Console) -> bool:
    """Run until the last block, or until `stop`; return whether all was handed to the kernel.

    It ends early, with False, when the sender gives up on a receiver that never answered.
    """
    chosen = simulation
    dialler = Dialler(chosen.faults, chosen.seed)
    timing = Timing(tries=1, retry_seconds=0) if chosen.gives_up else Timing()
    sender = Sender(chosen.config, timing=timing, dial=dialler)
    outlet = Outlet(sender, chosen.faults, chosen.seed)
    start = round(time.time() * 1000) if chosen.block_seconds else _FIXED_START_MS
    archive = None if chosen.api_port is None else Archive()
    node = Node(
        Chain(chosen.seed, first=chosen.first, load=chosen.load),
        outlet,
        start=start,
        block_seconds=chosen.block_seconds,
        faults=chosen.faults,
        archive=archive,
    )

    async def grow() -> None:
        await node.run(chosen.blocks)
        await sender.drain()
        if chosen.stays:
            await stop.wait()

    async def watch() -> None:
        """Return when it is time to give up; shows how it goes where there is a terminal."""
        columns = SpinnerColumn(), TextColumn("{task.description}")
        with Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        ) as progress:
            line = progress.add_task("")
            while not sender.counters.not_sent or (dialler.answered and not chosen.gives_up):
                progress.update(line, description=_told(node, outlet, sender))
                await asyncio.sleep(_REFRESH_SECONDS)

    async with AsyncExitStack() as resources:
        if archive is not None and chosen.api_port is not None:
            api = Api(archive, lambda: _minute(node), node.replay)
            port = await resources.enter_async_context(
                serve_api(api, sender.counters, chosen.api_port)
            )
            console.print(f"API on http://127.0.0.1:{port}/v2, counters on /metrics")
        parts = (grow(), watch(), stop.wait(), sender.run(), node.replays())
        tasks: list[asyncio.Task[object]] = [asyncio.ensure_future(part) for part in parts]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for task in done:
            task.result()
    console.print(_told(node, outlet, sender))
    return sender.is_idle and not (sender.counters.not_sent or sender.counters.dropped)


def _minute(node: Node) -> Minute:
    return Minute(
        node.height,
        node.complete,
        node.minute,
        node.began,
        node.minute_began,
        node.now,
        max(1, node.length // 1000),
    )


def _told(node: Node, outlet: Outlet, sender: Sender) -> str:
    counters = sender.counters
    return (
        f"height {node.height} minute {node.minute}: {outlet.offered:,} events,"
        f" {sender.waiting:,} waiting, {counters.not_sent:,} not sent,"
        f" {counters.dropped:,} dropped, {outlet.withheld:,} withheld by faults"
    )
