"""A node behind `ports.Node` that answers out of recorded heights, and fails or lies as told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from bridge.core.rebuild import RawHeight
from bridge.errors import NodeRefused, NodeUnavailable
from tests.support.heights import RecordedHeight, extract

__all__ = ["ScriptedNode", "chain"]

_NOT_FOUND = -32008


def chain() -> list[RecordedHeight]:
    """Return heights 0 to 6 of one chain, with the entries of all of them."""
    return [each for each in extract() if each.capture == "backfill-api" and each.height < 7]


class ScriptedNode:
    """Answers what it holds. Height and hash of every question are in `asked`."""

    def __init__(self, heights: Iterable[RecordedHeight] = ()) -> None:
        self.heights: dict[int, RawHeight] = {}
        """What it answers by height; take one away, or put another one's parts in its place."""
        self.parts_by_hash: dict[bytes, bytes] = {}
        self.highest = 0
        self.asked: list[int | bytes] = []
        self.replays: list[tuple[int, int]] = []
        self.tips = 0
        self.away = False
        self.away_for: set[int | bytes] = set()
        """Heights and hashes at which it goes away."""
        self.refuses_replay = False
        self.sends: Callable[[int], None] = lambda height: None
        """Called with each height of a replay."""
        self.before: Callable[[], None] = lambda: None
        """Called before each answer."""
        for each in heights:
            self.hold(each)

    def hold(self, height: RecordedHeight) -> None:
        """Hold a recorded height with its entries."""
        self.heights[height.height] = height.raw
        self.highest = max(self.highest, height.height)
        listed = height.raw.entry_blocks
        names = [key for method, key in height.answers if method == "raw-data"]
        for name in names:
            part = bytes.fromhex(height.answers["raw-data", name]["data"])
            if part in listed:
                self.parts_by_hash[bytes.fromhex(str(name))] = part
        self.parts_by_hash |= height.contents

    async def tip(self) -> int:
        """See `ports.Node`."""
        await self._answer()
        self.tips += 1
        return self.highest

    async def parts(self, height: int) -> tuple[bytes, bytes, bytes, bytes]:
        """See `ports.Node`."""
        self.asked.append(height)
        await self._answer(height)
        raw = self.heights.get(height)
        if raw is None:
            raise NodeRefused("dblock-by-height: Block not found", _NOT_FOUND)
        return raw.directory, raw.admin, raw.credit, raw.factoid

    async def raw(self, hash_: bytes) -> bytes:
        """See `ports.Node`."""
        self.asked.append(hash_)
        await self._answer(hash_)
        part = self.parts_by_hash.get(hash_)
        if part is None:
            raise NodeRefused("raw-data: Object not found", _NOT_FOUND)
        return part

    async def replay(self, first: int, last: int) -> None:
        """See `ports.Node`."""
        self.replays.append((first, last))
        await self._answer()
        if self.refuses_replay:
            raise NodeRefused("replay-from-height: Invalid params", -32602)
        for height in range(first, last + 1):
            self.sends(height)

    async def _answer(self, asked: int | bytes | None = None) -> None:
        await asyncio.sleep(0)
        self.before()
        if self.away or asked in self.away_for:
            raise NodeUnavailable("no answer")
