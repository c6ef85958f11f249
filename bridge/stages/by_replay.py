"""Asks the node to send blocks again over the feed, and waits for them.

They come through the same lossy queue that lost them, or not at all: so pages are small, one is
under way at a time, and a node that sends nothing is not asked again for a while.
"""

from __future__ import annotations

import asyncio
import time

from bridge.errors import NodeRefused, NodeUnavailable
from bridge.metrics import Metrics
from bridge.model import Asked, Way
from bridge.ports import Node
from bridge.stages.turns import Turn
from bridge.stages.wanted import Wanted, missing_of

__all__ = ["ByReplay"]

_SILENT = 3
"""Replays in a row that brought nothing, after which the node is taken for one that sends none."""


class ByReplay:
    """Fills pages by `replay-from-height`.

    `arrival_seconds` is how long blocks are waited for after the last one that came;
    `silence_seconds` is how long a node that sends nothing is left alone.
    """

    def __init__(
        self,
        node: Node,
        wanted: Wanted,
        metrics: Metrics,
        *,
        arrival_seconds: float,
        silence_seconds: float,
    ) -> None:
        self._node = node
        self._wanted = wanted
        self._metrics = metrics
        self._arrival = arrival_seconds
        self._silence = silence_seconds
        self._in_silence = 0
        self._silent_until = 0.0

    @property
    def helps(self) -> bool:
        """Whether it is worth trying just now."""
        return time.monotonic() >= self._silent_until

    async def page(self, page: Turn) -> str:
        """Ask for the page, and return why not all of it came, if so.

        Raises: as `Node`.
        """
        self._wanted.tell(Asked(page.first, page.last, Way.REPLAY))
        try:
            await self._node.replay(page.first, page.last)
        except (NodeUnavailable, NodeRefused) as error:
            self._metrics.asked_node(Way.REPLAY, error.code)
            self._brought(anything=False)
            raise
        left = await self._arrived(page)
        anything = left <= page.last - page.first
        self._metrics.asked_node(Way.REPLAY, "came" if anything else "nothing-came")
        self._brought(anything=anything)
        return f"the node was asked to replay, and {left} blocks did not come"

    async def _arrived(self, page: Turn) -> int:
        """Wait while blocks come, and return how many did not."""
        left = page.last - page.first + 1
        shortest, longest = self._arrival / 1000, self._arrival / 50
        until, pause = time.monotonic() + self._arrival, shortest
        while left:
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)
            is_over = time.monotonic() >= until
            if is_over:
                # What came may be in the journal, and not yet with the tracker.
                await self._wanted.caught_up()
            missing = missing_of(self._wanted, page.first, page.last)
            still = sum(last - first + 1 for first, last in missing)
            if still < left:
                left, until, pause = still, time.monotonic() + self._arrival, shortest
            elif is_over:
                break
        return left

    def _brought(self, *, anything: bool) -> None:
        self._in_silence = 0 if anything else self._in_silence + 1
        if self._in_silence >= _SILENT:
            self._silent_until = time.monotonic() + self._silence
