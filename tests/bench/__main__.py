"""`make bench`: starts the brokers, plays made-up events into real bridges, prints what they do.

A run of one case: the bridge as a child process on one core, the sender on the other (the brokers
share what is left), all events sent as fast as the bridge reads them. Measured are the time until
the last was accepted, the time until the last was acknowledged by every sink, and the CPU time of
the bridge alone. Medians of several runs; figures of different machines do not compare, so the
reference (a plain script without journal, headers or order) runs beside it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import NamedTuple

import psutil
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tests.bench.bridges import BenchBridge
from tests.bench.maker import SIZES, Maker
from tests.bench.reference import kafka_script, nats_script
from tests.bench.report import PAGE, page
from tests.brokers.kafka import KafkaBroker
from tests.brokers.nats import NatsBroker

_MB = 1_000_000
_BYTES = {"commit": 60 * _MB, "mix": 150 * _MB, "reveal": 300 * _MB, "block": 300 * _MB}
_TO = ("journal", "kafka", "nats", "both")


class Figures(NamedTuple):
    """One run: events per second accepted and published, MB/s, CPU seconds per 100,000 events."""

    accepted: float
    published: float
    megabytes: float
    cpu: float


def main() -> None:
    """Measure what the arguments choose, print a table, write the JSON."""
    parser = argparse.ArgumentParser(prog="make bench BENCH_ARGS=...", description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--to", default=",".join(_TO), help="journal,kafka,nats,both,script")
    parser.add_argument("--sizes", default=",".join(SIZES.values()), help="commit,mix,reveal,block")
    parser.add_argument("--formats", default="protobuf,json")
    parser.add_argument("--scale", type=float, default=1.0, help="of the amount of data")
    parser.add_argument(
        "--json", type=Path, help="where the figures are written; docs/performance.md too"
    )
    chosen = parser.parse_args()
    console = Console()
    targets, formats = chosen.to.split(","), chosen.formats.split(",")
    methods = [method for method in SIZES.values() if method in chosen.sizes.split(",")]
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="bridge-bench-") as folder, ExitStack() as brokers:
        kafka = brokers.enter_context(KafkaBroker(Path(folder) / "kafka"))
        # As the embedded server has it: a block of 1.5 MB is one message.
        config = "max_payload: 8388608"
        servers = {
            name: brokers.enter_context(
                NatsBroker(Path(folder) / name, config=config, sync_interval=interval)
            )
            for name, interval in (("nats", '"2m"'), ("nats always", "always"))
        }
        with Progress(console=console, transient=True) as progress:
            for method in methods:
                frames = list(Maker().many(method, _BYTES[method] * chosen.scale))
                cases = list(_cases(targets, formats))
                task = progress.add_task(method, total=len(cases) * chosen.runs)
                for target, format_ in cases:
                    runs = []
                    for _ in range(chosen.runs):
                        with _fresh(Path(folder)) as journal:
                            run = _measure(target, format_, frames, journal, kafka, servers)
                        runs.append(run)
                        progress.advance(task)
                    name = f"{method} {target} {format_}".strip()
                    found[name] = _median(runs)
        console.print(_table(found))
    if chosen.json:
        machine = _machine()
        chosen.json.write_text(json.dumps({"machine": machine, "figures": found}, indent=1) + "\n")
        PAGE.write_text(page(machine, found))


def _machine() -> str:
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(": ")[2]
            break
    python = sys.version.split()[0]
    return f"{os.cpu_count()} cores ({model}), Python {python}, {time.strftime('%Y-%m-%d')}"


def _cases(targets: list[str], formats: list[str]) -> Iterator[tuple[str, str]]:
    for target in targets:
        if target in {"journal", "script kafka", "script nats"}:
            yield target, ""
        elif target == "script":
            yield from (("script kafka", ""), ("script nats", ""), ("script nats always", ""))
        elif target in {"nats", "both"}:
            for format_ in formats:
                yield target, format_
                yield f"{target} always", format_
        else:
            for format_ in formats:
                yield target, format_


@contextmanager
def _fresh(folder: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="journal-", dir=folder) as journal:
        yield Path(journal)


def _measure(
    target: str,
    format_: str,
    frames: list[bytes],
    journal: Path,
    kafka: KafkaBroker,
    servers: dict[str, NatsBroker],
) -> Figures:
    sinks = target.partition(" ")[0]
    nats = servers["nats always" if target.endswith("always") else "nats"]
    if sinks == "script":
        count, size = len(frames), sum(map(len, frames))
        if "kafka" in target:
            seconds, cpu = kafka_script(frames, kafka.bootstrap)
        else:
            seconds, cpu = nats_script(frames, nats.url)
        rate = count / seconds
        return Figures(rate, rate, size / seconds / _MB, cpu / count * 100_000)
    environ = {"BRIDGE_FORMAT": format_ or "protobuf", "BRIDGE_PREFIX": f"bench{time.time_ns()}"}
    if sinks in {"kafka", "both"}:
        environ["BRIDGE_KAFKA__BOOTSTRAP_SERVERS"] = kafka.bootstrap
    if sinks in {"nats", "both"}:
        environ["BRIDGE_NATS__SERVERS"] = nats.url
        environ["BRIDGE_NATS__STREAM"] = environ["BRIDGE_PREFIX"]
    if sinks == "journal":
        # A broker that is never there: the journal takes everything, nothing is published.
        environ["BRIDGE_KAFKA__BOOTSTRAP_SERVERS"] = "127.0.0.1:1"
    with BenchBridge(journal, environ) as bridge:
        return _play(bridge, frames, publishes=sinks != "journal")


def _play(bridge: BenchBridge, frames: list[bytes], *, publishes: bool) -> Figures:
    count, size = len(frames), sum(map(len, frames))
    before = bridge.cpu_seconds()
    started = multiprocessing.Value("d", 0.0)
    sender = multiprocessing.Process(target=_send, args=(frames, bridge.feed_port, started))
    sender.start()
    accepted_at = published_at = 0.0
    while not (accepted_at and (published_at or not publishes)):
        time.sleep(0.02)
        progress = bridge.progress()
        now = time.perf_counter()
        if progress.accepted >= count and not accepted_at:
            accepted_at = now
        if progress.published >= count:
            published_at = now
    sender.join()
    cpu = bridge.cpu_seconds() - before
    # One clock for all processes of the machine. The end is told up to one poll late.
    accepted = accepted_at - started.value
    published = (published_at or accepted_at) - started.value
    return Figures(
        count / accepted, count / published, size / published / _MB, cpu / count * 100_000
    )


def _send(frames: list[bytes], port: int, started: Synchronized[float]) -> None:
    data = memoryview(b"".join(frames))
    with socket.create_connection(("127.0.0.1", port)) as connection:
        started.value = time.perf_counter()
        connection.sendall(data)


def _median(runs: list[Figures]) -> dict[str, float]:
    return {
        name: round(statistics.median(getattr(run, name) for run in runs), 3)
        for name in Figures._fields
    }


def _table(found: dict[str, dict[str, float]]) -> Table:
    table = Table(title=f"medians; {psutil.cpu_count()} cores, Python {sys.version.split()[0]}")
    table.add_column("events, to, format")
    for name in ("accepted/s", "published/s", "MB/s", "CPU s per 100,000"):
        table.add_column(name, justify="right")
    for name, figures in found.items():
        table.add_row(
            name,
            f"{figures['accepted']:,.0f}",
            f"{figures['published']:,.0f}",
            f"{figures['megabytes']:,.0f}",
            f"{figures['cpu']:.2f}",
        )
    return table


if __name__ == "__main__":
    main()
