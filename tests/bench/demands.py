"""What is demanded of the bridge's speed, and whether a run shows it: computed, never written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from rich.table import Table

__all__ = ["DEMANDS", "Demand", "Judged", "judged", "tell"]

Found = dict[str, Any]


class Demand(NamedTuple):
    """One line of the demands."""

    what: str
    bound: float
    at_least: bool
    unit: str
    measured: Callable[[Found], float]
    """Raises KeyError where the run did not measure it."""


class Judged(NamedTuple):
    """A demand beside what was measured."""

    demand: Demand
    figure: float
    holds: bool


def _ratio(above: str, below: str, figure: str = "published") -> Callable[[Found], float]:
    def measured(found: Found) -> float:
        runs = found["throughput"]
        return float(runs[above][figure] / runs[below][figure])

    return measured


def _of(measurement: str, case: str, figure: str) -> Callable[[Found], float]:
    return lambda found: float(found[measurement][case][figure])


def _most(measurement: str, figure: str) -> Callable[[Found], float]:
    return lambda found: float(max(each[figure] for each in found[measurement].values()))


def _of_ceiling(found: Found) -> float:
    ceilings = found["ceilings"]
    slowest = min(ceilings["commit framing"]["rate"], ceilings["commit journal"]["rate"])
    return float(found["throughput"]["commit journal"]["accepted"] / slowest)


def _both(found: Found) -> float:
    runs = found["throughput"]
    alone = min(runs[f"mix {sink} protobuf"]["published"] for sink in ("kafka", "nats"))
    return float(runs["mix both protobuf"]["published"] / alone)


def _least_drain(found: Found) -> float:
    return float(min(each["of_live"] for each in found["backlog"].values()))


_JOURNAL, _KAFKA, _SCRIPT = "commit journal", "mix kafka protobuf", "mix script kafka"

DEMANDS = (
    Demand("accepted, 190 B", 350_000, True, "/s", _of("throughput", _JOURNAL, "accepted")),
    Demand("accepted, 10 KB", 250, True, "MB/s", _of("throughput", "reveal journal", "megabytes")),
    Demand("accepted, of the slowest stage alone", 0.6, True, "", _of_ceiling),
    Demand("commit at half load, p99", 25, False, "ms", _most("commits", "p99_ms")),
    Demand("Kafka, mix, of the script", 1.0, True, "", _ratio(_KAFKA, _SCRIPT)),
    Demand("its CPU per event, of the script's", 1.3, False, "", _ratio(_KAFKA, _SCRIPT, "cpu")),
    Demand("Kafka, mix, JSON, of the script", 0.5, True, "", _ratio("mix kafka json", _SCRIPT)),
    Demand(
        *("JetStream, mix, of the script", 3.0, True, ""),
        _ratio("mix nats protobuf", "mix script nats"),
    ),
    Demand(
        *("the same, each write synced", 2.0, True, ""),
        _ratio("mix nats always protobuf", "mix script nats always"),
    ),
    Demand(
        *("JetStream, mix, JSON, of the script", 1.5, True, ""),
        _ratio("mix nats json", "mix script nats"),
    ),
    Demand("both sinks, of the slower alone", 0.7, True, "", _both),
    Demand(
        *("blocks to Kafka", 150, True, "MB/s"),
        _of("throughput", "block kafka protobuf", "megabytes"),
    ),
    Demand("latency at 1,000/s, p50", 10, False, "ms", _most("latency", "p50_ms")),
    Demand("latency at 1,000/s, p99", 50, False, "ms", _most("latency", "p99_ms")),
    Demand("memory at full speed", 150, False, "MB", _most("memory", "peak_mb")),
    Demand(
        *("memory with 5,000,000 events waiting", 200, False, "MB"),
        lambda found: float(found["deep"]["waiting_mb"]),
    ),
    Demand(
        *("ready with a journal of 10 GB", 3, False, "s"),
        lambda found: float(found["start"]["ready_seconds"]),
    ),
    Demand("drain of a backlog, of the live rate", 0.8, True, "", _least_drain),
)
"""In the order of the issue."""


def judged(found: Found) -> list[Judged]:
    """Return each demand that the run measured, with its figure."""
    rows = []
    for demand in DEMANDS:
        try:
            figure = demand.measured(found)
        except KeyError:
            continue
        holds = figure >= demand.bound if demand.at_least else figure <= demand.bound
        rows.append(Judged(demand, figure, holds))
    return rows


def tell(found: Found) -> Table:
    """Return the demands as a table for a terminal."""
    table = Table("demand", "at", "bound", "measured", "", title="demands")
    for demand, figure, holds in judged(found):
        table.add_row(
            demand.what,
            "least" if demand.at_least else "most",
            f"{demand.bound:g} {demand.unit}",
            f"{figure:,.3g} {demand.unit}" if figure < 1000 else f"{figure:,.0f} {demand.unit}",
            "kept" if holds else "MISSED",
        )
    return table
