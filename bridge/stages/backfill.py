"""Follows what is missing, and asks the node for it until it is there.

First by `replay-from-height`, which sends blocks over the feed; where that does not help, by height
and hash over the API. The lane is its own: it holds back while live events wait, and what cannot be
had waits ever longer, each page and each height by itself.

Nothing is remembered but how long to wait. What is missing is asked of the tracker each time anew,
so the stage may be interrupted anywhere.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import NoReturn

from bridge import log
from bridge.errors import DecodeError, NodeRefused, NodeUnavailable
from bridge.metrics import Metrics
from bridge.model import Sought, Tip, Unobtainable, Way
from bridge.ports import Journal, Node
from bridge.stages.by_api import ByApi
from bridge.stages.by_replay import ByReplay
from bridge.stages.turns import Turn, Turns
from bridge.stages.wanted import Wanted, missing_of

__all__ = ["Backfill", "Wanted"]

_REPLAYS = 2
"""Rounds in vain after which a page goes by the API."""
_BUSY_SECONDS = 0.05
_LOG_SECONDS = 10
_REMEDY = "Look whether the node is synced and has these blocks; it is asked again by itself."

_Work = Callable[[Turn], Awaitable[str]]
"""Gets what is wanted, and returns or raises why it did not get all of it."""

_log = log.get("backfill")


class Backfill:
    """Works on what is wanted, most urgent first, for as long as `run` is running.

    A gap comes before entries that are missing, and these before heights whose entries are not
    known. What is in vain waits, each on its own; when the node is away, all of it waits.
    """

    def __init__(
        self,
        node: Node,
        wanted: Wanted,
        journal: Journal,
        metrics: Metrics,
        *,
        page_heights: int = 20,
        heights_seconds: float = 60,
        backfill_from: int | None = None,
        receipts: bool = True,
        busy: Callable[[], bool] = lambda: False,
        waits: tuple[float, float] = (1, 300),
        arrival_seconds: float = 10,
        tries: int = 3,
    ) -> None:
        """Make the stage; nothing is asked yet.

        Args:
            node: its API.
            wanted: what is missing.
            journal: takes what is fetched.
            metrics: count what is done.
            page_heights: blocks that are asked for at a time.
            heights_seconds: time between two questions for the node's highest block.
            backfill_from: height from which on every block is wanted; None: what is missing.
            receipts: whether entry blocks and entries are fetched.
            busy: whether the live events wait; nothing is fetched while they do.
            waits: shortest and longest time, in seconds, until the same is tried again.
            arrival_seconds: how long blocks are waited for after the last one that came.
            tries: rounds over the API after which a page is told to be unobtainable.
        """
        self._node = node
        self._wanted = wanted
        self._metrics = metrics
        self._heights_seconds = heights_seconds
        self._from = backfill_from
        self._receipts = receipts
        self._busy = busy
        self._first_wait, self._longest_wait = waits
        self._patience = _REPLAYS + tries
        self._pages = Turns(page_heights, waits, self._patience)
        self._wanting = Turns(1, waits, tries)
        self._blind = Turns(1, waits, tries)
        self._replay = ByReplay(
            node,
            wanted,
            metrics,
            arrival_seconds=arrival_seconds,
            silence_seconds=self._longest_wait,
        )
        self._api = ByApi(
            node, wanted, journal, metrics, self._ready, retry_seconds=self._first_wait
        )
        self._tip_due = 0.0
        self._is_away = False
        self._wake = asyncio.Event()
        self._throttle = log.Throttle(_LOG_SECONDS)

    def sought(self, first: int, last: int) -> None:
        """Want the blocks of `first` to `last`, at once."""
        self._wanted.tell(Sought(first, last))
        self._wake.set()

    async def run(self) -> NoReturn:
        """Work until cancelled."""
        await self._wanted.caught_up()
        wait = self._first_wait
        while True:
            try:
                pause = 0.0 if await self._step() else self._first_wait
            except NodeUnavailable as error:
                self._away(error)
                pause = wait * random.uniform(0.5, 1)  # noqa: S311  (jitter)
                wait = min(wait * 2, self._longest_wait, self._heights_seconds)
            else:
                self._back()
                wait = self._first_wait
            if pause:
                await self._rest(pause)

    async def _step(self) -> bool:
        """Do the most urgent; return whether there was anything to do."""
        if time.monotonic() >= self._tip_due:
            await self._ask_tip()
        found = self._next_page()
        if found is not None:
            page, work = found
            await self._try(
                self._pages,
                page,
                work,
                lambda: _count(missing_of(self._wanted, page.first, page.last)),
            )
            return True
        return self._receipts and (
            await self._one_of(self._wanting, self._wanted.wanting, self._api.entries)
            or await self._one_of(self._blind, self._wanted.blind, self._api.blind)
        )

    async def _one_of(
        self,
        turns: Turns,
        lowest: Callable[[int], list[int]],
        work: _Work,
    ) -> bool:
        """Work on the lowest height that does not wait; return whether there is one."""
        # One more is looked at than wait, so that these hide no other.
        heights = lowest(turns.waiting + 1)
        looked = turns.look([(height, height) for height in heights])
        now = time.monotonic()
        turn = next((each for each in looked if each.due <= now), None)
        if turn is None:
            return False
        await self._try(turns, turn, work, lambda: int(turn.first in lowest(turns.waiting + 1)))
        return True

    async def _ask_tip(self) -> None:
        self._tip_due = time.monotonic() + self._heights_seconds
        try:
            tip = await self._node.tip()
        except NodeUnavailable as error:
            self._metrics.asked_node(Way.API, error.code)
            raise
        except NodeRefused as error:
            self._metrics.asked_node(Way.API, error.code)
            _log.warning("the node tells no height", error=str(error), remedy=error.remedy)
        else:
            self._wanted.tell(Tip(tip))
            if self._from is not None and self._from <= tip:
                self._wanted.tell(Sought(self._from, tip))
                self._from = None

    def _next_page(self) -> tuple[Turn, _Work] | None:
        """Return the lowest page whose turn it is, and by which way it goes."""
        missing = self._wanted.missing()
        now = time.monotonic()
        for page in self._pages.look(missing):
            if page.due <= now:
                way = self._way(page, missing)
                if way is not None:
                    return page, way
        return None

    def _way(self, page: Turn, missing: Sequence[tuple[int, int]]) -> _Work | None:
        # A page that nothing could get is tried by both ways in turn.
        is_for_replay = page.vain < _REPLAYS or (page.vain >= self._patience and page.vain % 2)
        if is_for_replay and self._replay.helps:
            return self._replay.page
        if self._api.can_prove(page, missing):
            return self._api.page
        return self._replay.page if self._replay.helps else None

    async def _try(
        self,
        turns: Turns,
        turn: Turn,
        work: _Work,
        left: Callable[[], int],
    ) -> None:
        """Do `work`; if it brought nothing, it waits."""
        await self._ready()
        before = left()
        try:
            why = await work(turn)
        except (NodeRefused, DecodeError) as error:
            why = str(error)
        except NodeUnavailable as error:
            if left() >= max(before, 1):
                self._in_vain(turns, turn, str(error))
            raise
        if left() >= max(before, 1):
            self._in_vain(turns, turn, why)

    def _in_vain(self, turns: Turns, turn: Turn, why: str) -> None:
        turn = turns.failed(turn, time.monotonic())
        held = self._throttle.passes("in vain")
        if held is not None:
            told = {"first": turn.first, "last": turn.last, "times": turn.vain, "held_back": held}
            _log.warning("asked in vain", **told, error=why, remedy=_REMEDY)
        if turns is self._pages and turn.vain >= self._patience:
            for first, last in missing_of(self._wanted, turn.first, turn.last):
                self._wanted.tell(Unobtainable(first, last, why))

    async def _ready(self) -> None:
        """Return when no live event waits. The tip is one small question: it is asked all the same."""
        while self._busy():
            await asyncio.sleep(_BUSY_SECONDS)
            if time.monotonic() >= self._tip_due:
                with suppress(NodeUnavailable):
                    await self._ask_tip()

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)
        self._wake.clear()

    def _away(self, error: NodeUnavailable) -> None:
        # The tip is asked first when it may be back, so that no page is blamed while it is not.
        self._tip_due = 0.0
        if not self._is_away:
            self._is_away = True
            _log.warning("the node is away", error=str(error), remedy=error.remedy)

    def _back(self) -> None:
        if self._is_away:
            self._is_away = False
            _log.info("the node answers again")


def _count(ranges: list[tuple[int, int]]) -> int:
    return sum(last - first + 1 for first, last in ranges)
