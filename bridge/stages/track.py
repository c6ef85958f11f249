"""Follows the journal for the heights of directory blocks, and alerts where some are missing.

Its alerts, its new state and its checkpoint are one transaction: an alert is written exactly once,
whatever crashes. The alerts are records of the journal and are published like all others.
"""

from __future__ import annotations

import asyncio

from bridge import log
from bridge.core.alerts import gap_alert
from bridge.core.framing import split_frames
from bridge.core.groups import own_run
from bridge.core.heights import Gap, GapOpened, GapResolved, Heights, Signal, observe
from bridge.core.peek import block_height
from bridge.errors import StorageFull
from bridge.metrics import Metrics
from bridge.model import Group, Kind, RecordType, Run
from bridge.pb.bridge.v1.gap_alert_pb2 import GapAlert
from bridge.ports import Journal

__all__ = ["READER", "Tracker"]

READER = "tracker"
_STEP_BYTES = 4 * 1024 * 1024
_log = log.get("tracker")


class Tracker:
    """Feeds the heights to the state machine, for as long as `run` is running."""

    def __init__(
        self, journal: Journal, metrics: Metrics, *, network: str, retry_seconds: float = 0.5
    ) -> None:
        self._retry_seconds = retry_seconds
        self._journal = journal
        self._metrics = metrics
        self._network = network
        self._heights = Heights.from_bytes(journal.state(READER))
        self._tell()

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """The gaps that are open."""
        return self._heights.gaps

    async def run(self) -> None:
        """Track until cancelled."""
        journal = self._journal
        while True:
            after = journal.position(READER)
            await journal.wait(after)
            for group in await journal.read(after, _STEP_BYTES):
                await self._step(group)

    async def _step(self, group: Group) -> None:
        heights, alerts = self._heights, []
        for run in group.runs:
            at_ns = run.received_ns
            for type_, payload in split_frames(run.frames):
                seen = block_height(payload) if type_ == RecordType.FEED else None
                if seen is None:
                    continue
                height, replayed = seen
                heights, signal = observe(heights, height, at_ns)
                if signal is not None:
                    self._signal(signal)
                    how = GapAlert.HOW_REPLAY if replayed else GapAlert.HOW_LATE
                    alert = gap_alert(self._network, signal, how, at_ns)
                    alerts.append(own_run(Kind.GAP_ALERT, alert.SerializeToString(), at_ns))
        if heights is self._heights:
            self._journal.checkpoint(READER, group.last)
            return
        await self._commit(heights, group.last, alerts)
        self._heights = heights
        self._tell()

    async def _commit(self, heights: Heights, seq: int, alerts: list[Run]) -> None:
        while True:
            try:
                await self._journal.advance(READER, seq, heights.to_bytes(), alerts)
            except StorageFull as error:
                self._metrics.storage_refused(error)
                await asyncio.sleep(self._retry_seconds)
            else:
                return

    def _tell(self) -> None:
        heights = self._heights
        self._metrics.heights(len(heights.gaps), heights.missing, heights.highest)

    def _signal(self, signal: Signal) -> None:
        match signal:
            case GapOpened(gap):
                self._metrics.gap_signal("opened")
                _log.warning("gap opened", first=gap.first, last=gap.last)
            case GapResolved(gap):
                self._metrics.gap_signal("resolved")
                _log.info("gap resolved", first=gap.first, last=gap.last)
            case _:
                self._metrics.gap_signal("jump-refused")
                _log.warning("height too far ahead", height=signal.height, highest=signal.highest)
