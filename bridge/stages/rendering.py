"""Turns portions of groups into messages for all lanes, and never holds the loop for long.

A group of many events comes in portions (`core.portions`), between which receiving goes on; a large
record is rendered aside. Lanes that are side by side share the work.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from bridge.core.careful import carefully
from bridge.core.flight import Flight
from bridge.core.portions import is_heavy, weight
from bridge.core.render import Rendered, Renderer
from bridge.model import Group, Message
from bridge.stages.aside import Aside

__all__ = ["Rendering"]

_KEPT_BYTES = 2 * 1024 * 1024
"""Of what is kept for the other lanes: a little more than what one of them sends at a time."""


class Rendering:
    """Renders portions for all lanes; lanes that are side by side share the work."""

    def __init__(
        self,
        renderer: Renderer,
        lanes: int,
        flight: Flight | None = None,
        aside: Aside | None = None,
    ) -> None:
        """`aside` renders large records; without one they are rendered in place, as small ones."""
        self._renderer = renderer
        self._flight = flight or Flight.unkept()
        self._aside = aside
        self._going_aside = asyncio.Lock()
        self._is_shared = lanes > 1
        self._kept: OrderedDict[tuple[int, int], tuple[int, Rendered]] = OrderedDict()
        """By the portion's numbers: its weight, and what it gives."""
        self._bytes = 0

    async def of(self, part: Group) -> Rendered:
        """Return `part`, a portion, as messages. Never waits for one that is not heavy."""
        kept = self._kept_of(part)
        if kept is not None:
            return kept
        if self._aside is None or not is_heavy(part) or self._flight.bars(part):
            return self._keep(part, carefully(self._renderer, part, self._flight))
        async with self._going_aside:
            # Another lane may have waited for the same one.
            return self._kept_of(part) or self._keep(part, await self._aside.render(part))

    def _kept_of(self, part: Group) -> Rendered | None:
        kept = self._kept.get((part.first, part.last))
        return kept and kept[1]

    def _keep(self, part: Group, rendered: Rendered) -> Rendered:
        if self._is_shared:
            size = weight(part)
            self._kept[part.first, part.last] = size, rendered
            self._bytes += size
            while self._bytes > _KEPT_BYTES:
                self._bytes -= self._kept.popitem(last=False)[1][0]
        return rendered

    def refused(self, message: Message, sink: str, error: str) -> Message:
        """Return the dead letter in place of `message`."""
        return self._renderer.refused(message, sink, error)
