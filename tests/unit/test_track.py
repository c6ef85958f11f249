"""`stages.track`: the heights of the journal into alerts."""

import asyncio

import pytest

from bridge.core.framing import frame, split_frames
from bridge.core.groups import own_run
from bridge.core.heights import Heights
from bridge.errors import StorageFull
from bridge.metrics import Metrics
from bridge.model import Group, Kind, RecordType, Run
from bridge.pb.bridge.v1.gap_alert_pb2 import GapAlert
from bridge.pb.eventmessages.factomEvents_pb2 import FactomEvent
from bridge.stages.track import READER, Tracker
from tests.doubles import MemoryJournal
from tests.support.captures import find_capture
from tests.support.waiting import during, until

Told = tuple[str, int, int, str]


def block(height: int, *, replayed: bool = False) -> bytes:
    header = {"blockHeight": height}
    member = {"directoryBlock": {"header": header}}
    return FactomEvent(eventSource=int(replayed), directoryBlockCommit=member).SerializeToString()  # type: ignore[arg-type]


def journal_of(*payloads: bytes, at_once: int = 20) -> MemoryJournal:
    journal = MemoryJournal()
    for start in range(0, len(payloads), at_once):
        part = payloads[start : start + at_once]
        run = Run("tcp/1", 1_000 + start, len(part), b"".join(map(frame, part)))
        journal.put(Group(start + 1, start + len(part), (run,)))
    return journal


def alerts(journal: MemoryJournal) -> list[GapAlert]:
    found = []
    for run in journal.runs:
        for type_, payload in split_frames(run.frames):
            if type_ == RecordType.OWN:
                kind, _, content = payload.partition(b"\0")
                assert kind.decode() == Kind.GAP_ALERT
                found.append(GapAlert.FromString(content))
    return found


def told(journal: MemoryJournal) -> list[Told]:
    return [
        (
            GapAlert.Status.Name(alert.status).removeprefix("STATUS_").lower(),
            alert.first_height,
            alert.last_height,
            GapAlert.How.Name(alert.how).removeprefix("HOW_").lower(),
        )
        for alert in alerts(journal)
    ]


async def track_all(journal: MemoryJournal) -> Metrics:
    metrics = Metrics()
    async with during(Tracker(journal, metrics, network="test").run()):
        await until(lambda: journal.position(READER) == journal.head)
    return metrics


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gap-long", [("opened", 4, 25, "unspecified")]),
        ("replay-from-height", []),
        ("tcp-json-once", []),
        ("gap-api", [("opened", 4, 26, "unspecified")]),
        # Height 31 was never sent again, so the gap stays open.
        ("gap-api-replay", [("opened", 4, 31, "unspecified")]),
    ],
)
async def test_recorded_feeds_give_the_gaps_that_they_are_known_to_have(
    name: str, expected: list[Told]
) -> None:
    capture = find_capture(name)
    if capture is None:
        pytest.skip(f"the recording {name} is not on this machine")
    journal = journal_of(*capture.payloads())
    metrics = await track_all(journal)
    assert told(journal) == expected
    assert metrics.registry.get_sample_value("bridge_gaps_open") == len(expected)
    if name == "gap-api-replay":
        assert Heights.from_bytes(journal.state(READER)).missing == 1


@pytest.mark.parametrize(("replayed", "how"), [(False, "late"), (True, "replay")])
async def test_a_gap_that_is_filled_is_resolved_with_how(replayed: bool, how: str) -> None:
    journal = journal_of(block(1), block(4), block(2), block(3, replayed=replayed))
    await track_all(journal)
    assert told(journal) == [("opened", 2, 3, "unspecified"), ("resolved", 2, 3, how)]
    opened, resolved = alerts(journal)
    assert opened.gap_id == resolved.gap_id == "test-2-3"


async def test_a_forged_height_is_one_alert_and_no_gap() -> None:
    journal = journal_of(block(1), block(2**32 - 1), block(2**32 - 2), block(2))
    await track_all(journal)
    assert told(journal) == [("unresolved", 2, 2**32 - 1, "unspecified")]


async def test_only_records_of_the_feed_are_heights() -> None:
    journal = journal_of(block(1))
    journal.put(Group(2, 2, (own_run(Kind.GAP_ALERT, block(9), 5),)))
    journal.put(Group(3, 3, (Run("tcp/1", 5, 1, frame(block(9), RecordType.FRAMING)),)))
    journal.put(Group(4, 9, (), "damaged"))
    journal.put(Group(10, 11, (Run("tcp/1", 5, 2, frame(b"\xff") + frame(block(2))),)))
    await track_all(journal)
    assert not any(journal.attempts)
    assert Heights.from_bytes(journal.state(READER)) == Heights(2)


async def test_it_goes_on_where_it_stopped_and_tells_nothing_twice() -> None:
    journal = journal_of(block(1), block(5))
    await track_all(journal)
    metrics = await track_all(journal)
    assert metrics.registry.get_sample_value("bridge_heights_missing") == 3
    assert len(told(journal)) == 1
    await journal.append([Run("tcp/1", 5, 3, b"".join(map(frame, map(block, (2, 3, 4)))))])
    await track_all(journal)
    assert [status for status, *_ in told(journal)] == ["opened", "resolved"]


async def test_alerts_and_state_and_checkpoint_are_committed_together_or_not_at_all() -> None:
    journal = journal_of(block(1), block(5))
    journal.refusals.extend([StorageFull("no space")] * 100_000)
    metrics = Metrics()
    async with during(Tracker(journal, metrics, network="test", retry_seconds=0.001).run()):
        await until(lambda: len(journal.attempts) > 3)
        assert (journal.position(READER), journal.state(READER), told(journal)) == (0, None, [])
        journal.refusals.clear()
        await until(lambda: journal.position(READER) == journal.head)
    assert len(told(journal)) == 1


async def test_events_that_are_no_blocks_move_the_checkpoint_and_write_no_state() -> None:
    journal = journal_of(b"", b"\xff", FactomEvent(stateChange={}).SerializeToString())
    await track_all(journal)
    assert journal.attempts == []
    assert journal.state(READER) is None


async def test_it_waits_for_what_is_not_there_yet() -> None:
    journal = journal_of()
    async with during(Tracker(journal, Metrics(), network="test").run()):
        await asyncio.sleep(0.01)
        await journal.append([Run("tcp/1", 5, 2, frame(block(1)) + frame(block(3)))])
        await until(lambda: len(told(journal)) == 1)
