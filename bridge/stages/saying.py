"""Turns what the tracker's state machines say into records of the journal, and tells the operator."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

from bridge import log
from bridge.core.alerts import alert_of
from bridge.core.framing import frame
from bridge.core.groups import own_run
from bridge.core.receipts import Derived
from bridge.core.signals import Signal, Status
from bridge.metrics import Metrics
from bridge.model import API_PEER, Kind, Run, Way

__all__ = ["OWN_PEER", "said"]

OWN_PEER = "bridge"

_log = log.get("tracker")


def said(
    network: str, metrics: Metrics, signals: Sequence[Signal], derived: Derived, at_ns: int
) -> list[Run]:
    """Return alerts, recovered events and receipts as records, logged and counted."""
    runs = []
    for signal in signals:
        alert = alert_of(network, signal)
        metrics.alerted(signal.trouble, signal.status)
        _say(signal, alert.detail)
        runs.append(own_run(Kind.GAP_ALERT, alert.SerializeToString(), at_ns))
    for (way, height), recovered in groupby(derived.recovered, key=itemgetter(0, 1)):
        frames = [frame(payload) for _, _, payload in recovered]
        # Out of a block of the feed, or of one that was fetched: consumers are told which.
        peer = f"{API_PEER}/{height}" if way is Way.API else OWN_PEER
        runs.append(Run(peer, at_ns, len(frames), b"".join(frames)))
        metrics.recovered(way, len(frames))
    runs += [
        own_run(Kind.BLOCK_RECEIPT, receipt.SerializeToString(), at_ns)
        for receipt in derived.receipts
    ]
    return runs


def _say(signal: Signal, detail: str) -> None:
    tell = _log.info if signal.status is Status.RESOLVED else _log.warning
    tell(
        f"{signal.trouble} {signal.status}",
        first=signal.first,
        last=signal.last,
        missing=signal.count,
        cause=signal.cause.value,
        detail=detail,
    )
