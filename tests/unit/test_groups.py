"""`core.groups`: runs as a row of the journal, and back."""

from collections.abc import Sequence

import google_crc32c
import pytest

from bridge.core.framing import frame
from bridge.core.groups import Row, framing_run, own_run, pack, unpack
from bridge.model import Group, Kind, RecordType, Run
from tests.support.records import records

RUNS = (
    Run("tcp/7", 1_700_000_000_123_456_789, 2, frame(b"one") + frame(b"")),
    Run("udp/12", 5, 1, frame(b"three")),
    own_run(Kind.GAP_ALERT, b"alert", 9),
)
EXTEND = google_crc32c.extend


def stored(runs: Sequence[Run]) -> Row[bytes]:
    """Return `runs` as a row, the way it is read back."""
    row = pack(41, runs, EXTEND)
    return Row(row.first, row.records, row.head, b"".join(row.frames), row.checksum)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_runs_come_back_as_they_were(count: int) -> None:
    row = stored(RUNS[:count])
    assert row.records == sum(run.records for run in RUNS[:count])
    assert unpack(row, 40 + row.records, EXTEND) == Group(41, 40 + row.records, RUNS[:count])


LAST = 40 + sum(run.records for run in RUNS)


def test_records_are_numbered_through_the_runs() -> None:
    found = list(records(unpack(stored(RUNS), LAST, EXTEND)))
    assert [(r.seq, r.type, r.payload, r.run.peer) for r in found] == [
        (41, RecordType.FEED, b"one", "tcp/7"),
        (42, RecordType.FEED, b"", "tcp/7"),
        (43, RecordType.FEED, b"three", "udp/12"),
        (44, RecordType.OWN, b"gap-alert\0alert", "bridge"),
    ]


def test_bytes_that_were_no_frame_are_a_record_with_their_reason() -> None:
    run = framing_run("tcp/1", "frame-version", b"GET /\0\xff", 3)
    (record,) = records(Group(1, 1, (run,)))
    assert (record.type, record.payload) == (RecordType.FRAMING, b"frame-version\0GET /\0\xff")


def test_any_changed_bit_makes_the_group_damaged_and_leaves_nothing_of_it() -> None:
    row = stored(RUNS[:2])
    changed = [row._replace(first=42), row._replace(checksum=row.checksum ^ 1)]
    for name in ("head", "frames"):
        data = getattr(row, name)
        for at in range(len(data)):
            flipped = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
            changed.append(row._replace(**{name: flipped}))
        changed += [row._replace(**{name: data[:-1]}), row._replace(**{name: data + b"\0"})]
    for one in changed:
        group = unpack(one, one.first + 2, EXTEND)
        assert group.damaged
        assert group.runs == ()
        assert (group.first, group.last) == (one.first, one.first + 2)
        assert list(records(group)) == []
