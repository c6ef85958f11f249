"""Asks the node for the blocks of open gaps, a page at a time, until they came.

`replay-from-height` sends blocks over the feed, through the same lossy queue that lost them: so the
pages are small, one is under way at a time, and what did not come is asked for again, ever less
often. What comes is received, journalled and tracked like all else: this stage only asks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import islice
from typing import NoReturn

from bridge import log
from bridge.core.heights import Gap
from bridge.errors import NodeRefused, NodeUnavailable
from bridge.metrics import Metrics
from bridge.ports import Node

__all__ = ["Backfill"]

_PAGES = 1_000
"""Pages that are looked at in one go."""

_log = log.get("backfill")


class Backfill:
    """Works on the gaps that `gaps` returns, lowest heights first, for as long as `run` is running.

    `grace_seconds` is how long a gap may fill by itself; `waits` are the shortest and the longest
    time, in seconds, between two requests that brought nothing; `arrival_seconds` is how long the
    blocks of one page are waited for.
    """

    def __init__(
        self,
        node: Node,
        gaps: Callable[[], tuple[Gap, ...]],
        metrics: Metrics,
        *,
        grace_seconds: float,
        page_heights: int,
        waits: tuple[float, float] = (1, 300),
        arrival_seconds: float = 10,
    ) -> None:
        self._node = node
        self._gaps = gaps
        self._metrics = metrics
        self._grace = grace_seconds
        self._page = page_heights
        self._first_wait, self._longest_wait = waits
        self._arrival = arrival_seconds
        self._seen: dict[tuple[int, int], float] = {}

    async def run(self) -> NoReturn:
        """Ask until cancelled."""
        wait, in_vain = self._first_wait, 0
        while True:
            pages = self._due()
            if pages:
                # A page that the node cannot send must not keep the others waiting.
                if await self._ask(*pages[in_vain % len(pages)]):
                    wait, in_vain = self._first_wait, 0
                else:
                    wait, in_vain = min(wait * 2, self._longest_wait), in_vain + 1
            await asyncio.sleep(wait)

    def _due(self) -> list[tuple[int, int]]:
        """Return the first pages of heights to ask for, of gaps whose grace is over."""
        now, gaps = time.monotonic(), self._gaps()
        self._seen = {
            (gap.first, gap.last): self._seen.get((gap.first, gap.last), now) for gap in gaps
        }
        due = [gap for gap in gaps if now - self._seen[gap.first, gap.last] >= self._grace]
        pages = (
            (first, min(last, first + self._page - 1))
            for gap in due
            for begin, last in gap.missing
            for first in range(begin, last + 1, self._page)
        )
        return list(islice(pages, _PAGES))

    async def _ask(self, first: int, last: int) -> bool:
        """Ask for heights and wait for them; return whether any came."""
        missing = self._missing(first, last)
        try:
            await self._node.replay(first, last)
        except (NodeUnavailable, NodeRefused) as error:
            self._metrics.replay_asked(error.code)
            _log.warning("not asked", first=first, last=last, error=str(error), remedy=error.remedy)
            return False
        until = time.monotonic() + self._arrival
        while self._missing(first, last) and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(self._arrival / 100)
        left = self._missing(first, last)
        self._metrics.replay_asked("came" if left < missing else "nothing-came")
        if left < missing:
            _log.info("blocks came", first=first, last=last, still_missing=left)
        else:
            _log.warning(
                "asked, and nothing came",
                first=first,
                last=last,
                remedy="Look whether the node is synced; it replays nothing before.",
            )
        return left < missing

    def _missing(self, first: int, last: int) -> int:
        """Return how many heights of `first` to `last` are missing still."""
        return sum(
            max(0, min(end, last) - max(begin, first) + 1)
            for gap in self._gaps()
            for begin, end in gap.missing
        )
