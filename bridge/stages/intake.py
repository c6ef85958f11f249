"""Takes what the receivers hand over into the journal, many runs at a time.

The only thing that receiving waits for is this commit. While one commit is under way the next one
gathers, so a slow disk makes larger commits and not more of them. A disk that is full stops the
reading and loses nothing; if it stays full, the feed is closed, so that the node knows. An alert
tells of that at once, with room that the journal keeps for it, and another one when it is over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from bridge import log
from bridge.core.alerts import storage_alert, storage_over
from bridge.core.groups import own_run
from bridge.errors import StorageFull
from bridge.health import Health
from bridge.metrics import Metrics
from bridge.model import Kind, Run
from bridge.pb.bridge.v1.gap_alert_pb2 import GapAlert
from bridge.ports import Journal

__all__ = ["LONGEST_WAY_SECONDS", "Intake"]

_LARGE_BYTES = 256 * 1024
"""With this much waiting, a commit no longer waits for more."""

_ENOUGH_BYTES = 8 * 1024 * 1024
"""With so much waiting, larger commits are no faster: a feed that is faster than the disk waits in the
node's socket, which is what holds it back, and not in memory."""

_PRESSED_BYTES = 1024 * 1024
"""With so much waiting, what can be done later makes way."""

LONGEST_WAY_SECONDS = 0.1
"""For which it does, whatever comes: under a feed that never ends it goes on, though slowly."""

_log = log.get("intake")


class Intake:
    """Gathers runs and commits them, for as long as `run` is running.

    With enough to commit it is congested, and receivers stop reading until they are relieved;
    `max_bytes` bounds what is handed over and not yet committed where that does not help. A full
    disk is tried again after `retry_seconds`, and waited for during `patience_seconds` before the
    feed is closed: the node gives up after 30.
    """

    def __init__(
        self,
        journal: Journal,
        metrics: Metrics,
        health: Health,
        *,
        network: str,
        max_bytes: int,
        delay_seconds: float,
        retry_seconds: float = 0.5,
        patience_seconds: float = 20,
    ) -> None:
        self._retry = retry_seconds
        self._patience = patience_seconds
        self._journal = journal
        self._metrics = metrics
        self._health = health
        self._network = network
        self._max_bytes = max_bytes
        self._enough = min(max_bytes, _ENOUGH_BYTES)
        self._delay = delay_seconds
        self._runs: list[Run] = []
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._eased = asyncio.Event()
        self._eased.set()
        self._paused: list[Callable[[], None]] = []
        self._bytes = 0
        self.shed: Callable[[], None] = lambda: None
        """Called when the disk stays full: closes the feed's connections."""
        self.closed = False
        """True while the feed is closed because the disk is full."""

    def offer(self, run: Run) -> None:
        """Hand `run` over. Never waits."""
        self._runs.append(run)
        self._bytes += len(run.frames)
        if not self._arrived.is_set():
            self._arrived.set()
            self._idle.clear()
        if self._bytes >= _PRESSED_BYTES:
            self._eased.clear()

    @property
    def congested(self) -> bool:
        """Whether receivers are to stop reading."""
        return self._bytes >= self._enough

    @property
    def full(self) -> bool:
        """Whether receivers are to refuse what cannot wait."""
        return self._bytes >= self._max_bytes

    def when_relieved(self, call: Callable[[], None]) -> None:
        """Call `call` once when the intake is congested no longer."""
        self._paused.append(call)

    async def make_way(self) -> None:
        """Return when little waits to be committed, or soon: let the others go first."""
        await asyncio.sleep(0)
        if not self._eased.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(LONGEST_WAY_SECONDS):
                    await self._eased.wait()

    async def drained(self) -> None:
        """Return when everything handed over is committed."""
        await self._idle.wait()

    async def run(self) -> None:
        """Commit until cancelled."""
        self._health.told("journal", "ready", ready=True)
        while True:
            await self._arrived.wait()
            if self._bytes < _LARGE_BYTES and self._delay:
                await asyncio.sleep(self._delay)
            runs, self._runs = self._runs, []
            self._arrived.clear()
            await self._commit(runs)
            self._bytes -= sum([len(run.frames) for run in runs])
            if self._bytes < _PRESSED_BYTES:
                self._eased.set()
            if not self._runs:
                self._idle.set()
            if self._paused and self._bytes < self._enough // 2:
                waiting, self._paused = self._paused, []
                for call in waiting:
                    call()

    async def _commit(self, runs: Sequence[Run]) -> None:
        full_since: float | None = None
        alert: GapAlert | None = None
        told = False
        while True:
            started = time.perf_counter()
            try:
                await self._journal.append(runs)
            except StorageFull as error:
                now = time.monotonic()
                full_since = full_since or now
                self._refused(error)
                if not self.closed and now - full_since >= self._patience:
                    self.closed = True
                    _log.error("feed closed, the journal's disk stays full", remedy=error.remedy)
                    self.shed()
                    alert = storage_alert(self._network, time.time_ns())
                    told = await self._tell(alert)
                await asyncio.sleep(self._retry)
                continue
            self._metrics.committed(runs, time.perf_counter() - started)
            if full_since is not None:
                self._health.told("journal", "ready", ready=True)
                _log.info("journal is written again")
            if alert is not None:
                self.closed = False
                # Behind all that came before the feed was closed: what is missing comes after it.
                over = storage_over(alert, time.time_ns())
                for each in [over] if told else [alert, over]:
                    self.offer(_run(each))
            return

    def _refused(self, error: StorageFull) -> None:
        self._metrics.storage_refused(error)
        if self._health.told("journal", error.code, cause=str(error)):
            _log.error("journal not written, reading stops", error=str(error), remedy=error.remedy)

    async def _tell(self, alert: GapAlert) -> bool:
        """Say whether the alert could be written on the full disk; else it is owed."""
        runs, started = [_run(alert)], time.perf_counter()
        try:
            await self._journal.append(runs, urgent=True)
        except StorageFull as error:
            self._metrics.storage_refused(error)
            return False
        self._metrics.committed(runs, time.perf_counter() - started)
        return True


def _run(alert: GapAlert) -> Run:
    return own_run(Kind.GAP_ALERT, alert.SerializeToString(), time.time_ns())
