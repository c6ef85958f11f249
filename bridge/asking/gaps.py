"""`factom-bridge gaps`: which heights are missing, why, and what is being done."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from bridge.asking.client import Bridge, Unanswered
from bridge.settings import Settings

__all__ = ["gap_row", "gaps_shown", "ranges", "summary"]

_ROWS = 100
"""Gaps that are shown; a terminal scrolls no more, and `--json` has all."""

_DETAILS = 10
"""Gaps of which the sentence is shown."""

_RANGES = 4
_PAUSE_SECONDS = 1
_UNAVAILABLE = 69
_STYLES = {"resolved": "green", "unresolved": "bold red", "backfilling": "cyan"}


def gaps_shown(
    settings: Settings,
    out: Console,
    err: Console,
    *,
    watch: bool = False,
    as_json: bool = False,
    check: bool = False,
    pause: Callable[[float], None] = time.sleep,
) -> int:
    """Show the running bridge's gaps; return the exit code.

    It is 69 when no bridge answers, and with `check` 1 when heights are missing. `watch` shows them
    anew each second until interrupted, and waits for a bridge that is away for a while.
    """
    try:
        bridge = Bridge.of(settings)
        told = bridge.get("/gaps")
    except Unanswered as unanswered:
        err.print(escape(str(unanswered)))
        return _UNAVAILABLE
    if watch:
        with suppress(KeyboardInterrupt):
            _watch(_looks(bridge, told, pause), out, err, as_json=as_json)
        return 0
    if as_json:
        out.out(json.dumps(told, indent=2))
    else:
        out.print(_shown(told))
    return 1 if check and told["missing"] else 0


def _looks(
    bridge: Bridge, told: Any, pause: Callable[[float], None]
) -> Iterator[Mapping[str, Any] | Unanswered]:
    """Yield the table, each second anew, or why there is none."""
    while True:
        yield told
        pause(_PAUSE_SECONDS)
        try:
            told = bridge.get("/gaps")
        except Unanswered as unanswered:
            told = unanswered


def _watch(
    looks: Iterable[Mapping[str, Any] | Unanswered], out: Console, err: Console, *, as_json: bool
) -> None:
    if as_json:
        for told in looks:
            if isinstance(told, Unanswered):
                err.print(escape(str(told)))
            else:
                out.out(json.dumps(told))
        return
    with Live(console=out, auto_refresh=False) as live:
        for told in looks:
            shown = escape(str(told)) if isinstance(told, Unanswered) else _shown(told)
            live.update(shown, refresh=True)


def _shown(told: Mapping[str, Any]) -> Group:
    gaps = told["gaps"]
    if not gaps:
        return Group(summary(told))
    table = Table(box=None, pad_edge=False)
    for name in ("gap", "status", "heights", "missing", "cause", "how", "attempts", "since"):
        table.add_column(name, justify="right" if name == "attempts" else "left", overflow="fold")
    now = datetime.now(UTC)
    for gap in gaps[:_ROWS]:
        table.add_row(*gap_row(gap, now))
    parts: list[Table | str] = [table]
    if len(gaps) > _ROWS:
        parts.append(f"and {len(gaps) - _ROWS} more (--json has all)")
    parts += [
        f"[dim]- {escape(gap['id'])}: {escape(gap['detail'])}[/]"
        for gap in gaps[:_DETAILS]
        if gap["detail"]
    ]
    return Group(*parts, summary(told))


def gap_row(gap: Mapping[str, Any], now: datetime) -> list[str]:
    """Return the cells of the line about `gap`, with its age at `now`."""
    status = gap["status"]
    style = _STYLES.get(status, "yellow")
    missing = f"{gap['missing_count']}"
    if gap["missing"]:
        missing += f": {ranges(gap['missing'])}"
    return [
        escape(gap["id"]),
        f"[{style}]{escape(status)}[/]",
        f"{gap['first']}-{gap['last']}",
        missing,
        escape(gap["cause"]),
        escape(gap["how"]),
        str(gap["attempts"]),
        _age((now - datetime.fromisoformat(gap["opened_at"])).total_seconds()),
    ]


def ranges(missing: Sequence[Sequence[int]]) -> str:
    """Return the first of the ranges `missing` as `4-9, 20`, and how many more there are."""
    told = [str(a) if a == b else f"{a}-{b}" for a, b in missing[:_RANGES]]
    if len(missing) > _RANGES:
        told.append(f"and {len(missing) - _RANGES} more")
    return ", ".join(told)


def summary(told: Mapping[str, Any]) -> str:
    """Return the last line: how far the chain is there, what is missing, what is being done."""
    highest, missing = told["highest"], told["missing"]
    parts = ["no block yet" if highest is None else f"highest height {highest}"]
    if missing:
        parts.append(f"[bold red]{missing} heights missing[/]")
        by = Counter(gap["status"] for gap in told["gaps"] if gap["missing_count"])
        parts += [f"{count} {status}" for status, count in by.items()]
        if not told["fetches"]:
            parts.append("nothing is fetched: no node's API is set (BRIDGE_NODE__URL)")
    else:
        parts.append("[green]no gaps[/]")
    if told["stalled"]:
        parts.append("[bold red]stalled[/]: blocks or minutes stay away")
    return "; ".join(parts)


def _age(seconds: float) -> str:
    whole = max(int(seconds), 0)
    minutes, hours, days = (whole // each for each in (60, 3_600, 86_400))
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{whole} s"
