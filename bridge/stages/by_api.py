"""Fills what is missing with what the node's API gives by height and hash.

What is fetched is proven (see `fetch`), put together as the node would have sent it, and appended
to the journal like all else. Before anything more is asked for the tracker has taken it in, so that
nothing is appended twice.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from operator import itemgetter

from bridge.core.framing import frame
from bridge.errors import DecodeError, StorageFull
from bridge.metrics import Metrics
from bridge.model import API_PEER, Asked, Run, Way
from bridge.ports import Journal, Node
from bridge.stages.fetch import Fetch, proof_of_missing, proof_of_present
from bridge.stages.turns import Turn
from bridge.stages.wanted import Wanted, missing_of

__all__ = ["ByApi"]


class ByApi:
    """Fetches blocks and entries, one height at a time.

    What does the work returns or raises why it did not do all of it; the errors are those of
    `Fetch`. `ready` returns when there is time for a request; a full disk is tried again after
    `retry_seconds`.
    """

    def __init__(
        self,
        node: Node,
        wanted: Wanted,
        journal: Journal,
        metrics: Metrics,
        ready: Callable[[], Awaitable[None]],
        *,
        retry_seconds: float,
    ) -> None:
        self._wanted = wanted
        self._journal = journal
        self._metrics = metrics
        self._fetch = Fetch(node, metrics, ready)
        self._retry = retry_seconds

    def can_prove(self, page: Turn, missing: Sequence[tuple[int, int]]) -> bool:
        """Whether blocks of a page could be told from false ones now.

        Args:
            page: the page.
            missing: see `Wanted.missing`; the page is within one of these ranges.
        """
        wanted = self._wanted
        if wanted.key_above(page.last) is not None:
            return True
        # Any block can be made to link to the one below it. So that proves nothing where one that
        # is there will name the true one, and must do at the end of the chain, where none is.
        _, end = missing[bisect_right(missing, page.first, key=itemgetter(0)) - 1]
        is_linked = not page.first or wanted.links_below(page.first) is not None
        return is_linked and wanted.key_above(end) is None

    async def page(self, page: Turn) -> str:
        """Fetch missing blocks, downward where the one above the page names its last."""
        self._wanted.tell(Asked(page.first, page.last, Way.API))
        heights = range(page.first, page.last + 1)
        is_named = self._wanted.key_above(page.last) is not None
        for height in reversed(heights) if is_named else heights:
            if self._is_missing(height):
                await self._missing_block(height)
        return "more has come to be missing meanwhile"

    async def blind(self, turn: Turn) -> str:
        """Fetch the block of a height that is there, for the entry blocks that it had not."""
        height = turn.first
        prove = proof_of_present(height, self._wanted.agrees)
        await self._append_block(height, await self._fetch.block(height, prove))
        return f"block {height} was fetched, and the tracker did not take it"

    async def entries(self, turn: Turn) -> str:
        """Fetch the entries of a height that are missing."""
        height = turn.first
        hashes = self._wanted.missing_entries(height)
        prove = proof_of_present(height, self._wanted.agrees)

        async def put(payloads: Sequence[bytes]) -> None:
            await self._append(height, payloads)
            self._metrics.entries_fetched(len(payloads))

        await self._fetch.reveals(height, prove, hashes, put)
        return f"entries of block {height} were fetched, and the tracker did not take them all"

    async def _missing_block(self, height: int) -> None:
        below = self._wanted.links_below(height)
        prove = proof_of_missing(height, self._wanted.key_above(height), below)
        payload = await self._fetch.block(height, prove, below)
        # Meanwhile it may have come by itself, or out of a replay that was given up.
        if self._is_missing(height):
            await self._append_block(height, payload)
            if self._is_missing(height):
                self._metrics.answer_refused("not-taken")
                raise DecodeError("not-taken", f"the tracker did not take block {height}")

    def _is_missing(self, height: int) -> bool:
        return bool(missing_of(self._wanted, height, height))

    async def _append_block(self, height: int, payload: bytes) -> None:
        await self._append(height, [payload])
        self._metrics.block_fetched()

    async def _append(self, height: int, payloads: Sequence[bytes]) -> None:
        frames = b"".join(map(frame, payloads))
        run = Run(f"{API_PEER}/{height}", time.time_ns(), len(payloads), frames)
        while True:
            started = time.perf_counter()
            try:
                await self._journal.append([run])
            except StorageFull as error:
                self._metrics.storage_refused(error)
                await asyncio.sleep(self._retry)
            else:
                break
        self._metrics.committed([run], time.perf_counter() - started)
        self._metrics.asked_node(Way.API, "came")
        await self._wanted.caught_up()
