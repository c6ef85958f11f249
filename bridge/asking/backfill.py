"""`factom-bridge backfill`: has the running bridge fetch heights, and follows until they are there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from bridge.asking.client import Bridge, Unanswered
from bridge.asking.gaps import ranges
from bridge.errors import UsageError
from bridge.settings import Settings

__all__ = ["Left", "backfill_shown", "left"]

_UNAVAILABLE = 69
_PAUSE_SECONDS = 0.5
_QUIET_SECONDS = 30
"""How long nothing comes before what is given up is believed to be: another page of the same gap may
still come, or it is being tried again."""

Pairs = list[tuple[int, int]]


class Left(NamedTuple):
    """What is missing of the heights sought, as ranges."""

    missing: Pairs
    given_up: Pairs
    """Of these, those that the bridge has tried every way for."""
    why: tuple[str, ...]
    """What it says of each of the gaps given up."""

    @property
    def heights(self) -> int:
        """How many are missing."""
        return _count(self.missing)

    @property
    def is_given_up(self) -> bool:
        """Whether that is all of it."""
        return self.heights == _count(self.given_up)


def backfill_shown(
    settings: Settings,
    first: int,
    last: int,
    out: Console,
    err: Console,
    *,
    pause: Callable[[float], None] = time.sleep,
    quiet_seconds: float = _QUIET_SECONDS,
) -> int:
    """Have the heights from `first` to `last` fetched, and follow; return the exit code.

    It is 0 when all are there, or when interrupted: the bridge goes on by itself. It is 1 when some
    cannot be had, 69 when no bridge answers or it cannot fetch.

    Raises:
        UsageError: the range is empty.
    """
    if first > last:
        raise UsageError(f"the range from {first} to {last} is empty")
    try:
        bridge = Bridge.of(settings)
        bridge.post("/backfill", {"from": first, "to": last})
        rest = _follow(bridge, first, last, err, pause, quiet_seconds)
    except Unanswered as unanswered:
        err.print(escape(str(unanswered)))
        return _UNAVAILABLE
    except KeyboardInterrupt:
        out.print("no longer followed; the bridge goes on by itself (factom-bridge gaps tells)")
        return 0
    total = last - first + 1
    if not rest.heights:
        out.print(f"[green]all {total} heights from {first} to {last} are there[/]")
        return 0
    out.print(
        f"[bold red]{rest.heights} of {total} heights cannot be had:[/] {ranges(rest.missing)}"
    )
    for sentence in rest.why:
        out.print(f"- {sentence}", markup=False)
    return 1


def _follow(
    bridge: Bridge,
    first: int,
    last: int,
    err: Console,
    pause: Callable[[float], None],
    quiet_seconds: float,
) -> Left:
    total = last - first + 1
    with Progress(
        TextColumn("heights {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    ) as progress:
        bar = progress.add_task(f"{first}-{last}", total=total)
        lacking, changed_at = total, time.monotonic()
        while True:
            told = bridge.get("/gaps")
            rest = left(told, first, last)
            now = time.monotonic()
            if told["pending"] or rest.heights != lacking:
                lacking, changed_at = rest.heights, now
            if not told["pending"]:
                progress.update(bar, completed=total - lacking)
                if not lacking or (rest.is_given_up and now - changed_at >= quiet_seconds):
                    return rest
            pause(_PAUSE_SECONDS)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f} heights/s")


def left(told: Mapping[str, Any], first: int, last: int) -> Left:
    """Return what the table `told` misses of the heights from `first` to `last`."""
    missing, given_up, why = Pairs(), Pairs(), []
    for gap in told["gaps"]:
        within = [(max(a, first), min(b, last)) for a, b in gap["missing"]]
        within = [(a, b) for a, b in within if a <= b]
        missing += within
        if within and gap["status"] == "unresolved":
            given_up += within
            why.append(f"{gap['id']}: {gap['detail']}")
    return Left(sorted(missing), given_up, tuple(why))


def _count(pairs: Pairs) -> int:
    return sum(b - a + 1 for a, b in pairs)
