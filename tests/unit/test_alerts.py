"""`core.alerts`: what is said of gaps and of other troubles."""

from dataclasses import replace

import pytest

from bridge.core.alerts import alert_of, regression_alert, storage_alert
from bridge.core.ranges import Range
from bridge.core.signals import Cause, Signal, Status, Trouble
from bridge.model import Way
from bridge.pb.bridge.v1.gap_alert_pb2 import GapAlert, HeightRange

OPENED_NS, NOW_NS = 1_700_000_000_000_000_001, 1_700_000_600_000_000_002
GAP = Signal(
    id="4-25",
    trouble=Trouble.GAP,
    status=Status.OPENED,
    first=4,
    last=25,
    opened_ns=OPENED_NS,
    changed_ns=NOW_NS,
    cause=Cause.SILENT,
    missing=(Range(4, 9), Range(20, 25)),
    count=12,
    before=3,
    after=26,
)
RESOLVED = replace(GAP, status=Status.RESOLVED, missing=(), count=0, how=Way.REPLAY)
STALLED = Signal("stalled-9-1", Trouble.STALLED, Status.OPENED, 9, 9, 1, 2, why="nothing came")


def test_an_opened_gap_is_told_with_what_is_missing() -> None:
    alert = alert_of("main", GAP)
    assert (alert.gap_id, alert.network) == ("main-4-25", "main")
    assert (alert.type, alert.status) == (GapAlert.TYPE_GAP, GapAlert.STATUS_OPENED)
    assert (alert.first_height, alert.last_height) == (4, 25)
    assert (alert.height_before, alert.height_after) == (3, 26)
    assert list(alert.missing) == [HeightRange(first=4, last=9), HeightRange(first=20, last=25)]
    assert (alert.missing_count, alert.attempts) == (12, 0)
    assert (alert.cause, alert.how) == (GapAlert.CAUSE_NODE_SILENT, GapAlert.HOW_UNSPECIFIED)
    assert alert.opened_at.ToNanoseconds() == OPENED_NS
    assert alert.changed_at.ToNanoseconds() == NOW_NS
    assert alert.detail.startswith("12 heights of 4 to 25 are missing: the node was silent")


@pytest.mark.parametrize(
    ("way", "how"),
    [
        (Way.LIVE, GapAlert.HOW_LATE),
        (Way.REPLAY, GapAlert.HOW_REPLAY),
        (Way.API, GapAlert.HOW_API),
    ],
)
def test_a_resolved_gap_has_the_same_id_misses_nothing_and_tells_how(
    way: Way, how: GapAlert.How
) -> None:
    alert = alert_of("main", replace(RESOLVED, how=way))
    assert alert.gap_id == alert_of("main", GAP).gap_id
    assert (alert.status, alert.how) == (GapAlert.STATUS_RESOLVED, how)
    assert (len(alert.missing), alert.missing_count) == (0, 0)


def test_heights_before_and_after_are_unset_where_there_are_none() -> None:
    alert = alert_of("main", replace(GAP, before=None, after=None))
    assert not alert.HasField("height_before")
    assert not alert.HasField("height_after")
    assert alert_of("main", replace(GAP, before=0)).HasField("height_before")


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("status", [each for each in Status if each is not Status.SEEN])
def test_every_state_of_a_gap_says_something_to_the_operator(cause: Cause, status: Status) -> None:
    alert = alert_of("main", replace(GAP, cause=cause, status=status, why="no node has it"))
    assert GapAlert.Cause.Name(alert.cause) == f"CAUSE_{_upper(cause)}"
    assert GapAlert.Status.Name(alert.status) == f"STATUS_{_upper(status)}"
    assert len(alert.detail) > 20
    assert ("no node has it" in alert.detail) == (status is Status.UNRESOLVED)


def test_a_single_missing_height_is_named() -> None:
    one = replace(GAP, missing=(Range(7, 7),), count=1)
    assert alert_of("main", one).detail.startswith("height 7 is missing: ")


def test_a_gap_that_is_not_waited_for_any_more_says_why() -> None:
    ended = replace(RESOLVED, status=Status.UNRESOLVED, why="another chain went on")
    assert alert_of("main", ended).detail == "it is not waited for any more: another chain went on"


@pytest.mark.parametrize(
    ("trouble", "type_"),
    [
        (Trouble.JUMP, GapAlert.TYPE_GAP),
        (Trouble.STALLED, GapAlert.TYPE_STALLED),
        (Trouble.REGRESSION, GapAlert.TYPE_REGRESSION),
        (Trouble.NETWORK, GapAlert.TYPE_NETWORK_MISMATCH),
        (Trouble.UNVERIFIED, GapAlert.TYPE_UNVERIFIED),
    ],
)
def test_other_troubles_have_types_of_their_own_and_say_what_to_do(
    trouble: Trouble, type_: GapAlert.Type
) -> None:
    opened = alert_of("main", replace(STALLED, trouble=trouble))
    assert (opened.type, opened.first_height) == (type_, 9)
    assert opened.detail.startswith("nothing came; ")
    ended = alert_of("main", replace(STALLED, trouble=trouble, status=Status.RESOLVED))
    assert ended.detail == "nothing came"


def test_a_full_disk_is_an_alert_of_its_own_type() -> None:
    alert = storage_alert("main", NOW_NS)
    assert (alert.type, alert.cause) == (GapAlert.TYPE_STORAGE, GapAlert.CAUSE_STORAGE)
    assert alert.gap_id == "main-storage-1700000600"


def test_a_sink_that_lost_something_is_an_alert_of_its_own_type() -> None:
    alert = regression_alert("main", "nats", 5, 9, NOW_NS)
    assert (alert.type, alert.gap_id) == (GapAlert.TYPE_SINK_REGRESSED, "main-nats-regressed-9")


@pytest.mark.parametrize("signal", [GAP, RESOLVED, STALLED])
def test_the_same_signal_gives_the_same_bytes(signal: Signal) -> None:
    one, other = (alert_of("main", signal) for _ in range(2))
    assert one.SerializeToString() == other.SerializeToString()


def _upper(word: str) -> str:
    return word.upper().replace("-", "_")
