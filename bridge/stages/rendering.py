"""Turns groups into messages for all lanes, and never holds the loop for long.

A group of many events is rendered in portions, between which receiving goes on; a large record is
rendered aside. Lanes that are side by side share the work.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from bridge.core.careful import carefully, joined
from bridge.core.flight import Flight
from bridge.core.portions import is_heavy, is_large, portions
from bridge.core.render import Rendered, Renderer
from bridge.model import Group, Message
from bridge.stages.aside import Aside

__all__ = ["Rendering"]

_KEPT_GROUPS, _KEPT_BYTES = 16, 1024 * 1024
"""Groups that are kept for the other lanes, and how large one may be for that."""


class Rendering:
    """Renders groups for all lanes; lanes that are side by side share the work."""

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
        self._cutting = asyncio.Lock()
        self._is_shared = lanes > 1
        self._kept: OrderedDict[tuple[int, int], Rendered] = OrderedDict()

    async def of(self, group: Group) -> Rendered:
        """Return `group` as messages. Never waits for one that is not large."""
        rendered = self._kept.get((group.first, group.last))
        if rendered is not None:
            return rendered
        if not is_large(group):
            return self._keep(group, carefully(self._renderer, group, self._flight))
        async with self._cutting:
            # Another lane may have waited for the same group.
            rendered = self._kept.get((group.first, group.last))
            return rendered or self._keep(group, await self._in_portions(group))

    def _keep(self, group: Group, rendered: Rendered) -> Rendered:
        if self._is_shared and _size(rendered) <= _KEPT_BYTES:
            self._kept[group.first, group.last] = rendered
            if len(self._kept) > _KEPT_GROUPS:
                self._kept.popitem(last=False)
        return rendered

    async def _in_portions(self, group: Group) -> Rendered:
        parts = []
        for part in portions(group):
            if self._aside is not None and is_heavy(part) and not self._flight.bars(part):
                parts.append(await self._aside.render(part))
            else:
                parts.append(carefully(self._renderer, part, self._flight))
                await asyncio.sleep(0)
        return joined(group, parts)

    def refused(self, message: Message, sink: str, error: str) -> Message:
        """Return the dead letter in place of `message`."""
        return self._renderer.refused(message, sink, error)


def _size(rendered: Rendered) -> int:
    return sum([len(message.data) for message in rendered.messages])
