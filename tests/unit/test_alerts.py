"""`core.alerts`: what is said of a gap."""

import pytest

from bridge.core.alerts import gap_alert, storage_alert
from bridge.core.heights import Gap, GapOpened, GapResolved, JumpRefused, Signal
from bridge.pb.bridge.v1.gap_alert_pb2 import GapAlert, HeightRange

OPENED_NS, NOW_NS = 1_700_000_000_000_000_001, 1_700_000_600_000_000_002
GAP = Gap(4, 25, OPENED_NS, ((4, 9), (20, 25)))


def test_an_opened_gap_is_told_with_what_is_missing() -> None:
    alert = gap_alert("main", GapOpened(GAP), GapAlert.HOW_LATE, NOW_NS)
    assert (alert.gap_id, alert.network) == ("main-4-25", "main")
    assert (alert.type, alert.status) == (GapAlert.TYPE_GAP, GapAlert.STATUS_OPENED)
    assert (alert.first_height, alert.last_height) == (4, 25)
    assert (alert.height_before, alert.height_after) == (3, 26)
    assert list(alert.missing) == [HeightRange(first=4, last=9), HeightRange(first=20, last=25)]
    assert alert.missing_count == 12
    assert alert.how == GapAlert.HOW_UNSPECIFIED
    assert alert.opened_at.ToNanoseconds() == OPENED_NS
    assert alert.changed_at.ToNanoseconds() == NOW_NS


@pytest.mark.parametrize("how", [GapAlert.HOW_LATE, GapAlert.HOW_REPLAY])
def test_a_resolved_gap_has_the_same_id_misses_nothing_and_tells_how(how: GapAlert.How) -> None:
    opened = gap_alert("main", GapOpened(GAP), how, OPENED_NS)
    alert = gap_alert("main", GapResolved(GAP), how, NOW_NS)
    assert alert.gap_id == opened.gap_id
    assert (alert.status, alert.how) == (GapAlert.STATUS_RESOLVED, how)
    assert (len(alert.missing), alert.missing_count) == (0, 0)
    assert alert.opened_at.ToNanoseconds() == OPENED_NS


def test_a_refused_jump_is_unresolved_from_the_first() -> None:
    alert = gap_alert("main", JumpRefused(2**32 - 1, 10), GapAlert.HOW_LATE, NOW_NS)
    assert (alert.gap_id, alert.status) == ("main-jump-4294967295", GapAlert.STATUS_UNRESOLVED)
    assert (alert.first_height, alert.last_height, alert.height_before) == (11, 2**32 - 1, 10)
    assert "4294967295" in alert.detail


def test_a_full_disk_is_an_alert_of_its_own_type() -> None:
    alert = storage_alert("main", NOW_NS)
    assert (alert.type, alert.cause) == (GapAlert.TYPE_STORAGE, GapAlert.CAUSE_STORAGE)
    assert alert.gap_id == "main-storage-1700000600"


@pytest.mark.parametrize("signal", [GapOpened(GAP), GapResolved(GAP), JumpRefused(99, 1)])
def test_the_same_signal_gives_the_same_bytes(signal: Signal) -> None:
    one, other = (gap_alert("main", signal, GapAlert.HOW_LATE, NOW_NS) for _ in range(2))
    assert one.SerializeToString() == other.SerializeToString()
