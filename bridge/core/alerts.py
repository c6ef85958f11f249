"""Makes the alerts: a pure function of what happened, so a repeated one has the same bytes."""

from __future__ import annotations

from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from bridge.core.signals import Cause, Signal, Status, Trouble
from bridge.model import Way
from bridge.pb.bridge.v1.gap_alert_pb2 import GapAlert, HeightRange

__all__ = ["alert_of", "gap_told", "regression_alert", "storage_alert", "storage_over"]

_TYPES = {
    Trouble.GAP: GapAlert.TYPE_GAP,
    Trouble.JUMP: GapAlert.TYPE_GAP,
    Trouble.STALLED: GapAlert.TYPE_STALLED,
    Trouble.REGRESSION: GapAlert.TYPE_REGRESSION,
    Trouble.NETWORK: GapAlert.TYPE_NETWORK_MISMATCH,
    Trouble.UNVERIFIED: GapAlert.TYPE_UNVERIFIED,
}
_STATUSES = {
    Status.OPENED: GapAlert.STATUS_OPENED,
    Status.UPDATED: GapAlert.STATUS_UPDATED,
    Status.BACKFILLING: GapAlert.STATUS_BACKFILLING,
    Status.UNRESOLVED: GapAlert.STATUS_UNRESOLVED,
    Status.RESOLVED: GapAlert.STATUS_RESOLVED,
}
_CAUSES = {
    Cause.SILENT: GapAlert.CAUSE_NODE_SILENT,
    Cause.NOT_SYNCED: GapAlert.CAUSE_NODE_NOT_SYNCED,
    Cause.RESTART: GapAlert.CAUSE_BRIDGE_RESTART,
    Cause.STORAGE: GapAlert.CAUSE_STORAGE,
    Cause.UNLINKED: GapAlert.CAUSE_UNLINKED,
    Cause.UNKNOWN: GapAlert.CAUSE_UNKNOWN,
}
_WAYS = {
    None: GapAlert.HOW_UNSPECIFIED,
    Way.LIVE: GapAlert.HOW_LATE,
    Way.REPLAY: GapAlert.HOW_REPLAY,
    Way.API: GapAlert.HOW_API,
}
_FOUND = {
    Cause.SILENT: "the node was silent, or the link to it was down",
    Cause.NOT_SYNCED: "the node told minutes and no blocks, as it does while it is not synced",
    Cause.RESTART: "the bridge was away",
    Cause.STORAGE: "the journal refused events, because its disk was full",
    Cause.UNLINKED: "a block came that does not link to the one beside it",
    Cause.UNKNOWN: "they were never received, or are sought by an operator",
}
_FETCHED = "the bridge fetches them where it knows the node's API (BRIDGE_NODE__URL)"
_REMEDIES = {
    Cause.SILENT: f"look at the node and its link; {_FETCHED}",
    Cause.NOT_SYNCED: f"wait until the node is synced; {_FETCHED}",
    Cause.RESTART: _FETCHED,
    Cause.STORAGE: f"give the journal more room; {_FETCHED}",
    Cause.UNLINKED: "compare the blocks with those of another node: one of the two is not true",
    Cause.UNKNOWN: _FETCHED,
}
_ADVICE = {
    Trouble.JUMP: "it is taken for forged and opens no gap; look who sends to the feed's port",
    Trouble.STALLED: "look at the node, its peers and its link",
    Trouble.REGRESSION: "two chains are sent; look whether a node was reset or has forked",
    Trouble.NETWORK: "it counts as not come; look which nodes send to this bridge",
    Trouble.UNVERIFIED: "it counts as not come; look at the node that sent it",
}


def alert_of(network: str, signal: Signal) -> GapAlert:
    """Return the alert that tells of `signal`."""
    return GapAlert(
        gap_id=f"{network}-{signal.id}",
        network=network,
        type=_TYPES[signal.trouble],
        status=_STATUSES[signal.status],
        first_height=signal.first,
        last_height=signal.last,
        missing=(HeightRange(first=first, last=last) for first, last in signal.missing),
        missing_count=signal.count,
        cause=_CAUSES[signal.cause],
        how=_WAYS[signal.how],
        attempts=signal.attempts,
        opened_at=_time(signal.opened_ns),
        changed_at=_time(signal.changed_ns),
        height_before=signal.before,
        height_after=signal.after,
        detail=_of_gap(signal) if signal.trouble is Trouble.GAP else _of_other(signal),
    )


_FULL = "the journal's disk is full and the feed is closed; what the node sends is lost"
_ROOM = "the journal is written again and the feed is open; the node dropped what it had meanwhile"


def storage_alert(network: str, at_ns: int, detail: str = _FULL) -> GapAlert:
    """Return the alert that the journal lost something, or had to refuse it."""
    return GapAlert(
        gap_id=f"{network}-storage-{at_ns // 1_000_000_000}",
        network=network,
        type=GapAlert.TYPE_STORAGE,
        status=GapAlert.STATUS_OPENED,
        cause=GapAlert.CAUSE_STORAGE,
        opened_at=_time(at_ns),
        changed_at=_time(at_ns),
        detail=detail,
    )


def storage_over(opened: GapAlert, at_ns: int) -> GapAlert:
    """Return the alert that what `opened` tells of is over."""
    over = GapAlert(status=GapAlert.STATUS_RESOLVED, changed_at=_time(at_ns), detail=_ROOM)
    alert = GapAlert.FromString(opened.SerializeToString())
    alert.MergeFrom(over)
    return alert


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


def gap_told(alert: GapAlert) -> dict[str, Any]:
    """Return the gap that `alert` tells the latest of, as the table has it."""
    return {
        "id": alert.gap_id,
        "status": _word(GapAlert.Status.Name(alert.status)),
        "first": alert.first_height,
        "last": alert.last_height,
        "missing": [[each.first, each.last] for each in alert.missing],
        "missing_count": alert.missing_count,
        "cause": _word(GapAlert.Cause.Name(alert.cause)),
        "how": _word(GapAlert.How.Name(alert.how)),
        "attempts": alert.attempts,
        "opened_at": alert.opened_at.ToJsonString(),
        "changed_at": alert.changed_at.ToJsonString(),
        "detail": alert.detail,
    }


def _word(name: str) -> str:
    """Return `node-silent` for CAUSE_NODE_SILENT; unspecified is no word."""
    word = name.partition("_")[2].lower().replace("_", "-")
    return "" if word == "unspecified" else word


def _of_gap(signal: Signal) -> str:
    match signal.status:
        case Status.RESOLVED:
            return "nothing of it is missing any more"
        case Status.UNRESOLVED if not signal.count:
            return f"it is not waited for any more: {signal.why}"
        case Status.UNRESOLVED:
            return (
                f"{_missing(signal)} and could not be fetched: {signal.why}; the bridge tries again,"
                " but seldom: look whether any node of the network has them"
            )
        case Status.BACKFILLING:
            return f"{_missing(signal)}: {_FOUND[signal.cause]}; the bridge has asked for them"
        case _:
            return f"{_missing(signal)}: {_FOUND[signal.cause]}; {_REMEDIES[signal.cause]}"


def _of_other(signal: Signal) -> str:
    if signal.status is Status.RESOLVED:
        return signal.why
    return f"{signal.why}; {_ADVICE[signal.trouble]}"


def _missing(signal: Signal) -> str:
    if signal.count == 1:
        return f"height {signal.missing[0].first} is missing"
    return f"{signal.count} heights of {signal.first} to {signal.last} are missing"


def _time(ns: int) -> Timestamp:
    seconds, nanos = divmod(ns, 1_000_000_000)
    return Timestamp(seconds=seconds, nanos=nanos)
