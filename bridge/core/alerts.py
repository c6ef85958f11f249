"""Makes the alerts: a pure function of what happened, so a repeated one has the same bytes."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from bridge.core.heights import Gap, GapOpened, GapResolved, JumpRefused, Signal
from bridge.pb.bridge.v1.gap_alert_pb2 import GapAlert, HeightRange

__all__ = ["gap_alert", "regression_alert", "storage_alert"]


def gap_alert(network: str, signal: Signal, how: GapAlert.How, at_ns: int) -> GapAlert:
    """Return the alert that tells of `signal`; `how` says by which way a gap was filled."""
    match signal:
        case GapOpened(gap):
            alert = _of_gap(network, gap, at_ns)
            alert.status = GapAlert.STATUS_OPENED
            alert.missing.extend(HeightRange(first=a, last=b) for a, b in gap.missing)
            alert.missing_count = sum(b - a + 1 for a, b in gap.missing)
        case GapResolved(gap):
            alert = _of_gap(network, gap, at_ns)
            alert.status = GapAlert.STATUS_RESOLVED
            alert.how = how
        case JumpRefused(height, highest):
            alert = GapAlert(
                gap_id=f"{network}-jump-{height}",
                network=network,
                type=GapAlert.TYPE_GAP,
                status=GapAlert.STATUS_UNRESOLVED,
                cause=GapAlert.CAUSE_UNKNOWN,
                first_height=highest + 1,
                last_height=height,
                changed_at=_time(at_ns),
                opened_at=_time(at_ns),
                height_before=highest,
                detail=f"height {height} is so far ahead of {highest} that it is taken for forged",
            )
    return alert


def storage_alert(network: str, at_ns: int) -> GapAlert:
    """Return the alert that the feed was closed because the journal's disk was full."""
    return GapAlert(
        gap_id=f"{network}-storage-{at_ns // 1_000_000_000}",
        network=network,
        type=GapAlert.TYPE_STORAGE,
        status=GapAlert.STATUS_OPENED,
        cause=GapAlert.CAUSE_STORAGE,
        opened_at=_time(at_ns),
        changed_at=_time(at_ns),
        detail="the journal's disk was full and the feed was closed; what the node sent is lost",
    )


def regression_alert(network: str, sink: str, held: int, had: int, at_ns: int) -> GapAlert:
    """Return the alert that `sink` holds the journal up to `held`, and had acknowledged `had`."""
    return GapAlert(
        gap_id=f"{network}-{sink}-regressed-{had}",
        network=network,
        type=GapAlert.TYPE_SINK_REGRESSED,
        status=GapAlert.STATUS_OPENED,
        cause=GapAlert.CAUSE_STORAGE,
        opened_at=_time(at_ns),
        changed_at=_time(at_ns),
        detail=f"{sink} lost what it had acknowledged behind number {held} of the journal; what the"
        f" journal still holds up to {had} is sent again with the same ids",
    )


def _of_gap(network: str, gap: Gap, at_ns: int) -> GapAlert:
    return GapAlert(
        gap_id=f"{network}-{gap.first}-{gap.last}",
        network=network,
        type=GapAlert.TYPE_GAP,
        cause=GapAlert.CAUSE_UNKNOWN,
        first_height=gap.first,
        last_height=gap.last,
        opened_at=_time(gap.opened_ns),
        changed_at=_time(at_ns),
        height_before=gap.first - 1,
        height_after=gap.last + 1,
    )


def _time(ns: int) -> Timestamp:
    seconds, nanos = divmod(ns, 1_000_000_000)
    return Timestamp(seconds=seconds, nanos=nanos)
