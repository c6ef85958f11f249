"""What every measurement stands on: brokers, feeds, bridges, a sender, and medians of several runs."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import NamedTuple, Self

from rich.console import Console

from tests.bench.bridges import BenchBridge, Untrue, wait_of
from tests.bench.feeds import Feed, FeedMaker
from tests.brokers.kafka import KafkaBroker
from tests.brokers.nats import NatsBroker
from tests.support.consumers import nats_client

__all__ = ["MB", "Figures", "Ground", "Options", "environ_of", "median", "sending"]

MB = 1_000_000
_STUCK_SECONDS = 60
"""A run in which nothing moves for so long has failed."""
_BYTES = {"commit": 100 * MB, "mix": 150 * MB, "reveal": 300 * MB, "block": 200 * MB}


class Options(NamedTuple):
    """What the command line chooses."""

    runs: int = 3
    scale: float = 1.0
    """Of the amount of data, and of the seconds that something takes."""
    backlog: int = 1_000_000
    deep: int = 5_000_000
    journal_bytes: float = 10e9
    pin: bool = True
    sizes: tuple[str, ...] = ()
    to: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()


class Figures(NamedTuple):
    """One run: events per second, MB/s published."""

    accepted: float
    published: float
    tracked: float
    """Accounted for, in the end: the tracker may be behind the lanes."""
    megabytes: float
    cpu: float
    """Seconds for 100,000 events, until all is published and tracked."""
    peak_mb: float
    """Most resident memory of the bridge."""


class Ground:
    """Brokers, for a `with`; feeds are made once. `nats` are by target."""

    def __init__(self, options: Options, console: Console) -> None:
        self.options = options
        self.console = console
        self._feeds: dict[tuple[str, float], Feed] = {}
        cores = sorted(os.sched_getaffinity(0))
        pinned = options.pin and len(cores) > 1
        self.cores = frozenset(cores[:1]) if pinned else None
        """The bridge's."""
        self._others = frozenset(cores[1:]) if pinned else frozenset(cores)

    def __enter__(self) -> Self:
        # What is started from now on inherits it: brokers, senders, consumers.
        os.sched_setaffinity(0, self._others)
        with ExitStack() as stack:
            self.folder = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="bridge-bench-"))
            )
            self.kafka = stack.enter_context(KafkaBroker(self.folder / "kafka"))
            # As the embedded server has it: a block of 1.5 MB is one message.
            config = "max_payload: 8388608"
            self.nats = {
                name: stack.enter_context(
                    NatsBroker(self.folder / name, config=config, sync_interval=interval)
                )
                for name, interval in (("nats", '"2m"'), ("nats always", "always"))
            }
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def say(self, text: str) -> None:
        """Tell how it goes."""
        self.console.print(f"[dim]{time.strftime('%H:%M:%S')}[/dim] {text}")

    def feed(self, method: str, share: float = 1.0) -> Feed:
        """Return the feed of that size, of which `share` of the usual amount."""
        key = method, share
        if key not in self._feeds:
            self._feeds[key] = FeedMaker().feed(method, _BYTES[method] * self.options.scale * share)
        return self._feeds[key]

    def forget(self, method: str) -> None:
        """Let the memory of feeds go that are not needed any more."""
        self._feeds = {key: feed for key, feed in self._feeds.items() if key[0] != method}

    @contextmanager
    def journal(self) -> Iterator[Path]:
        """Yield a new folder for a journal."""
        with tempfile.TemporaryDirectory(prefix="journal-", dir=self.folder) as journal:
            yield Path(journal)

    @contextmanager
    def bridge(self, target: str, format_: str = "protobuf") -> Iterator[BenchBridge]:
        """Run a bridge with a new journal that publishes to `target`, into topics of its own."""
        environ = environ_of(self, target, format_)
        with self.journal() as folder, BenchBridge(folder, environ, self.cores) as bridge:
            yield bridge
        if "BRIDGE_NATS__SERVERS" in environ:
            asyncio.run(_forget(environ["BRIDGE_NATS__SERVERS"], environ["BRIDGE_NATS__STREAM"]))

    def play(self, target: str, format_: str, feed: Feed) -> Figures:
        """Send `feed` to a bridge as fast as it reads, and return what came of it.

        Raises:
            Untrue: something was lost, refused or alerted.
        """
        with self.bridge(target, format_) as bridge:
            publishes = target != "journal"
            if publishes:
                # Topics and streams are made once in a life.
                bridge.wait_ready()
            before = len(feed.before)
            if before:
                with sending(feed.before, bridge.feed_port):
                    _until(bridge, before, publishes=publishes)
            cpu = bridge.cpu_seconds()
            count = len(feed.frames)
            with sending(feed.frames, bridge.feed_port) as started:
                accepted_at, published_at = _until(bridge, before + count, publishes=publishes)
            tracked_at = bridge.wait_tracked()
            cpu, peak = bridge.cpu_seconds() - cpu, bridge.peak_bytes()
            bridge.check(feed.blocks)
        # One clock for all processes of the machine. The end is told up to one look late.
        accepted, published, tracked = (
            at - started.value for at in (accepted_at, published_at, tracked_at)
        )
        return Figures(
            count / accepted,
            count / published,
            count / tracked,
            feed.size / published / MB,
            cpu / count * 100_000,
            peak / MB,
        )

    def repeat(
        self, name: str, run: Callable[..., Mapping[str, float]], *arguments: object
    ) -> dict[str, float]:
        """Return the medians of several runs, each with these arguments."""
        self.say(name)
        return median([run(*arguments) for _ in range(self.options.runs)])

    @contextmanager
    def in_the_place_of_the_bridge(self) -> Iterator[None]:
        """Run the body on the cores of the bridge."""
        mine = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self.cores or mine)
        try:
            yield
        finally:
            os.sched_setaffinity(0, mine)


def environ_of(ground: Ground, target: str, format_: str) -> dict[str, str]:
    """Return the settings of a bridge to `target`: journal, kafka, nats, both, and `... always`."""
    sinks = target.partition(" ")[0]
    server = ground.nats["nats always" if target.endswith("always") else "nats"]
    prefix = f"bench{time.time_ns()}"
    environ = {"BRIDGE_FORMAT": format_, "BRIDGE_PREFIX": prefix}
    if sinks in {"kafka", "both"}:
        environ["BRIDGE_KAFKA__BOOTSTRAP_SERVERS"] = ground.kafka.bootstrap
    if sinks in {"nats", "both"}:
        environ |= {"BRIDGE_NATS__SERVERS": server.url, "BRIDGE_NATS__STREAM": prefix}
    if sinks == "journal":
        # A broker that is never there: the journal takes everything, nothing is published.
        environ["BRIDGE_KAFKA__BOOTSTRAP_SERVERS"] = "127.0.0.1:1"
    return environ


async def _forget(url: str, stream: str) -> None:
    """Delete `stream`, as the script does: a server with many is slower."""
    async with nats_client(url) as client:
        await client.jetstream().delete_stream(stream)


def _until(bridge: BenchBridge, count: int, *, publishes: bool) -> tuple[float, float]:
    """Return when `count` events were accepted, and when every sink had published them.

    Where nothing is published, the two are the same.
    """
    accepted_at = 0.0
    began = moved_at = time.perf_counter()
    last = -1, -1
    wait = 0.0
    while True:
        time.sleep(wait)
        progress = bridge.progress()
        now = time.perf_counter()
        ahead = progress.published if accepted_at else progress.accepted
        wait = wait_of(count - ahead, ahead, now - began)
        if progress != last:
            last, moved_at = progress, now
        elif now - moved_at > _STUCK_SECONDS:
            raise Untrue(f"of {count} events the bridge has {progress}, and nothing moves")
        if progress.accepted >= count and not accepted_at:
            accepted_at = now
        if accepted_at and (progress.published >= count or not publishes):
            return accepted_at, now


@contextmanager
def sending(
    frames: Iterable[bytes] | bytes,
    port: int,
    per_second: float = 0,
    times: int = 1,
) -> Iterator[Synchronized[float]]:
    """Have a process send `frames` so many times during the body, and yield when it began.

    With `per_second`, evenly so many frames. It must be done, or is ended, when the body ends.
    """
    began = multiprocessing.Value("d", 0.0)
    target, arguments = _send, (frames, port, began, per_second, times)
    sender = multiprocessing.Process(target=target, args=arguments, daemon=True)
    sender.start()
    try:
        yield began
    finally:
        sender.join(0 if per_second else 5)
        sender.kill()
        sender.join()


_TURNS = 200
"""In a second, of a sender that sends evenly."""


def _send(
    frames: Iterable[bytes] | bytes,
    port: int,
    began: Synchronized[float],
    per_second: float,
    times: int,
) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not per_second:
            data = frames if isinstance(frames, bytes) else b"".join(frames)
            began.value = time.perf_counter()
            for _ in range(times):
                connection.sendall(data)
            return
        assert not isinstance(frames, bytes)
        every = list(frames)
        began.value = started = time.perf_counter()
        at, turn = 0, 0
        while at < len(every):
            turn += 1
            until = min(len(every), int(turn * per_second / _TURNS))
            connection.sendall(b"".join(every[at:until]))
            at = until
            time.sleep(max(0.0, started + turn / _TURNS - time.perf_counter()))


def median(runs: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each figure."""
    every = list(runs)
    return {name: round(statistics.median(run[name] for run in every), 3) for name in every[0]}
