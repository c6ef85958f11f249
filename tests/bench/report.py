"""Shows the figures of a run: as tables, and as `docs/performance.md` with its chart."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from rich.table import Table

from tests.bench.demands import judged

__all__ = ["tables", "write"]

_DOCS = Path(__file__).resolve().parents[2] / "docs"
_MEASUREMENTS = ("throughput", "ceilings", "commits", "latency", "memory", "backlog")
_HEAD = """# How fast it is

Written by `make bench BENCH_ARGS="--json FILE"` from the figures of one run, medians of {runs}. They are of
one machine:

> {machine}

The bridge runs as one process on one core, its journal synced at every commit; the brokers, the sender and
the measuring share the others: ratios mean more than figures. The script is what one would write by hand
(`tests/bench/reference.py`): an asyncio server that takes the same feed off a socket as well, on the bridge's
core, without journal, headers or recovery. "tracked" is the rate at which all is
accounted for too; the CPU counts that. "always" is a NATS server that syncs each write, as the embedded
one does.

## What is demanded, and what was measured

| demand | bound | measured | |
| --- | ---: | ---: | --- |
"""
_ROW, _BAR, _LEFT, _WIDTH = 22, 14, 210, 720


def tables(found: dict[str, Any]) -> list[Table]:
    """Return a table for each measurement."""
    made = []
    for name in _MEASUREMENTS:
        if name in found:
            columns = list(dict.fromkeys(key for each in found[name].values() for key in each))
            table = Table("case", *columns, title=name)
            for case, figures in found[name].items():
                table.add_row(case, *[_told(figures.get(column)) for column in columns])
            made.append(table)
    return made


def write(found: dict[str, Any]) -> None:
    """Write the page and its chart."""
    parts = [_HEAD.format(machine=found["machine"], runs=found["options"]["runs"])]
    for demand, figure, holds in judged(found):
        sign, verdict = ("≥" if demand.at_least else "≤"), ("kept" if holds else "**missed**")
        bound = f"{sign} {demand.bound:,g} {demand.unit}".strip()
        measured = f"{_told(figure)} {demand.unit}".strip()
        parts.append(f"| {demand.what} | {bound} | {measured} | {verdict} |\n")
    parts.append("\n![Events a second to each broker](performance.svg)\n")
    for name in _MEASUREMENTS:
        parts += _section(name, found[name])
    parts.append(f"\nStart with a large journal: {_line(found['start'])}.\n")
    parts.append(f"\nMemory with a deep backlog: {_line(found['deep'])}.\n")
    (_DOCS / "performance.md").write_text("".join(parts), encoding="utf-8")
    runs = found["throughput"]
    bars = {
        case: figures["published"]
        for case, figures in runs.items()
        if case.startswith("mix ") and "journal" not in case
    }
    (_DOCS / "performance.svg").write_text(_chart(bars), encoding="utf-8")


def _section(name: str, cases: dict[str, dict[str, float]]) -> list[str]:
    columns = list(dict.fromkeys(key for each in cases.values() for key in each))
    lines = [f"\n## {name.capitalize()}\n\n| case | {' | '.join(columns)} |\n"]
    lines.append(f"| --- |{' ---: |' * len(columns)}\n")
    for case, figures in cases.items():
        cells = " | ".join(_told(figures.get(column)) for column in columns)
        lines.append(f"| {case} | {cells} |\n")
    return lines


def _line(figures: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {_told(value)}" for name, value in figures.items())


def _told(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _chart(bars: dict[str, float]) -> str:
    """Return a drawing of `bars`, events a second by case; the script's are grey."""
    longest, height = max(bars.values()), _ROW * len(bars) + 10
    size = f'width="{_WIDTH}" height="{height}" font-family="sans-serif" font-size="12"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size}>']
    for row, (case, value) in enumerate(bars.items()):
        top, width = row * _ROW + 8, value / longest * (_WIDTH - _LEFT - 90)
        colour = "#999" if "script" in case else "#27c"
        parts.append(
            f'<text x="{_LEFT - 8}" y="{top + 11}" text-anchor="end">{escape(case)}</text>'
            f'<rect x="{_LEFT}" y="{top}" width="{width:.0f}" height="{_BAR}" fill="{colour}"/>'
            f'<text x="{_LEFT + width + 6:.0f}" y="{top + 11}">{value:,.0f}/s</text>'
        )
    return "\n".join((*parts, "</svg>", ""))
