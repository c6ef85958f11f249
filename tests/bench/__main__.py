"""`make bench`: starts the brokers, plays made-up events into real bridges, prints what they do.

The bridge is a child process on one core; the sender, the brokers and the measuring share the
others. Medians of several runs; figures of different machines do not compare, so that a plain
script without journal, headers or order runs beside it (`reference`), and the ceiling of each stage
alone. A run in which the bridge has anything to alert, to refuse or to dead-letter fails.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.bench import (
    backlog,
    ceilings,
    commits,
    deep,
    latency,
    memory,
    start,
    throughput,
)
from tests.bench.demands import tell
from tests.bench.ground import Ground, Options
from tests.bench.report import tables, write

_MEASUREMENTS: dict[str, Callable[[Ground], dict[str, Any]]] = {
    "throughput": throughput.measure,
    "ceilings": ceilings.measure,
    "commits": commits.measure,
    "latency": latency.measure,
    "memory": memory.measure,
    "backlog": backlog.measure,
    "deep": deep.measure,
    "start": start.measure,
}
_QUICK = Options(runs=1, scale=0.05, backlog=50_000, deep=200_000, journal_bytes=2e8)


def main() -> None:
    """Measure what the arguments choose, print tables, write the JSON and the page."""
    chosen = _arguments()
    options = _QUICK if chosen.quick else Options()
    given = {
        name: value
        for name, value in vars(chosen).items()
        if name in Options._fields and value is not None
    }
    options = options._replace(**given)
    console = Console()
    found: dict[str, Any] = {
        "machine": _machine(),
        "options": options._asdict(),
        "quick": chosen.quick,
        "seconds": {},
    }
    with Ground(options, console) as ground:
        for name in chosen.only:
            began = time.monotonic()
            found[name] = _MEASUREMENTS[name](ground)
            found["seconds"][name] = round(time.monotonic() - began, 1)
    for table in tables(found):
        console.print(table)
    console.print(tell(found))
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")
        if not chosen.quick and set(chosen.only) == set(_MEASUREMENTS):
            write(found)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench BENCH_ARGS=...", description=__doc__)

    def words(text: str) -> tuple[str, ...]:
        return tuple(text.split(","))

    add = parser.add_argument
    add("--only", type=words, default=tuple(_MEASUREMENTS), help=", ".join(_MEASUREMENTS))
    add("--quick", action="store_true", help="once, with little data: to see that it works")
    add("--runs", type=int)
    add("--scale", type=float, help="of the amount of data")
    add("--backlog", type=int, help="events of the backlog that is drained")
    add("--deep", type=int, help="events of the backlog of which only memory is measured")
    add("--journal-bytes", type=float, help="size of the journal with which it is started")
    add("--no-pin", dest="pin", action="store_false", default=None, help="any process, any core")
    add("--sizes", type=words, help="of throughput: commit, mix, reveal, block")
    add("--to", type=words, help="of throughput: journal, kafka, nats, both, script kafka, ...")
    add("--formats", type=words, help="of throughput: protobuf, json")
    add("--json", type=Path, help="where the figures go; a whole run writes the page too")
    chosen = parser.parse_args()
    unknown = set(chosen.only) - set(_MEASUREMENTS)
    if unknown:
        parser.error(f"no measurement {', '.join(sorted(unknown))}: {', '.join(_MEASUREMENTS)}")
    return chosen


def _machine() -> str:
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(": ")[2]
            break
    python = sys.version.split()[0]
    return f"{os.cpu_count()} cores ({model}), Python {python}, {time.strftime('%Y-%m-%d')}"


if __name__ == "__main__":
    main()
