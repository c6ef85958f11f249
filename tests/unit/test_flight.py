"""`core.flight` and its file: where the process died, and what nobody is to decode again."""

import asyncio
import struct
from pathlib import Path

import pytest
from google.protobuf.message import DecodeError as ProtobufError

from bridge.core.careful import carefully
from bridge.core.flight import PAGE_BYTES, Crash, Flight, Work
from bridge.core.framing import frame
from bridge.core.heights import Bounds
from bridge.core.render import Rendered, Renderer
from bridge.core.routing import ChainFilter, Routes
from bridge.errors import StorageDamaged
from bridge.journal.flight import open_flight
from bridge.metrics import Metrics
from bridge.model import Group, Kind, RecordType, Run
from bridge.pb.bridge.v1.dead_letter_pb2 import DeadLetter
from bridge.pb.eventmessages.factomEvents_pb2 import FactomEvent
from bridge.stages.track import Tracker
from tests.doubles import MemoryJournal
from tests.support.maker import Maker
from tests.support.records import records
from tests.support.waiting import during

EPOCH = "0123456789abcdef"
TRACKING, RENDERING = Work.TRACKING, Work.RENDERING


BROKEN = Run("bridge", 1, 1, frame(Kind.GAP_ALERT.value.encode() + b"\0\xff", RecordType.OWN))
"""Something of the bridge's own that is no protobuf: nobody expects that, so it is an end."""


class Killed(Exception):
    """The process died."""


def event(number: int) -> bytes:
    entry = {"hash": number.to_bytes(32, "big")}
    return FactomEvent(entryReveal={"entry": entry}).SerializeToString()


def group(first: int, count: int = 1) -> Group:
    frames = b"".join(frame(event(number)) for number in range(first, first + count))
    return Group(first, first + count - 1, (Run("tcp/1", 5, count, frames),))


class Page:
    """A page, and the processes that come and go on it."""

    def __init__(self) -> None:
        self.bytes = bytearray(PAGE_BYTES)

    def start(self, *, head: int = 1_000, epoch: str = EPOCH) -> Flight:
        return Flight(memoryview(self.bytes), epoch, head)

    def die(self, at: Group, work: Work = RENDERING) -> None:
        """Start, and die within `at`."""
        self.start().begin(work, at)

    def crash(self) -> Crash | None:
        return self.start().crash


def test_a_record_in_flight_at_three_crashes_is_quarantined() -> None:
    page = Page()
    page.die(group(11, 5))
    flight = page.start()
    assert flight.crash == Crash(11, 15, RENDERING, 1, is_quarantined=False)
    parts = flight.parts(group(11, 5))
    assert [(part.first, part.last) for part in parts] == [(seq, seq) for seq in range(11, 16)]
    flight.begin(RENDERING, parts[2])
    flight = page.start()
    assert flight.crash == Crash(13, 13, RENDERING, 2, is_quarantined=False)
    flight.begin(RENDERING, parts[2])
    flight = page.start()
    assert flight.crash == Crash(13, 13, RENDERING, 3, is_quarantined=True)
    assert flight.quarantined == {13}
    assert [part.first for part in flight.each(RENDERING, group(11, 5))] == [11, 12, 14, 15]
    assert [part.first for part in flight.each(TRACKING, group(11, 5))] == [11, 12, 14, 15]
    assert (page.crash(), page.start().quarantined) == (None, {13})


def test_the_parts_are_the_records_as_they_stand_in_the_group() -> None:
    page = Page()
    own = Run("bridge", 7, 1, frame(b"gap-alert\0x", RecordType.OWN))
    whole = Group(4, 7, (*group(4, 2).runs, own, *group(7).runs))
    page.die(whole)
    parts = page.start().parts(whole)
    assert [
        (seq, type_, payload, run.peer, run.received_ns)
        for part in parts
        for seq, type_, payload, run in records(part)
    ] == [
        (seq, type_, payload, run.peer, run.received_ns)
        for seq, type_, payload, run in records(whole)
    ]
    assert [part.first for part in parts] == [part.last for part in parts] == [4, 5, 6, 7]


def test_a_group_that_nobody_suspects_stays_whole() -> None:
    page = Page()
    page.die(group(11, 5))
    flight = page.start()
    for other in (group(6, 5), group(16, 5)):
        assert flight.parts(other) == (other,)


def test_who_comes_through_is_cleared_and_needs_three_more_crashes() -> None:
    page, at = Page(), group(11)
    for _ in range(5):
        for _ in range(2):
            page.die(at)
        flight = page.start()
        assert flight.crash is not None
        assert flight.crash.crashes == 2
        flight.begin(RENDERING, at)
        flight.end(RENDERING, at)
    assert page.start().quarantined == set()


def test_a_group_is_cleared_with_its_last_record() -> None:
    page = Page()
    page.die(group(11, 3))
    flight = page.start()
    for part in flight.each(RENDERING, group(11, 3)):
        assert part.first == part.last
    assert len(flight.parts(group(11, 3))) == 1
    assert len(page.start().parts(group(11, 3))) == 1


def test_what_one_work_comes_through_the_other_may_still_die_of() -> None:
    page, at = Page(), group(11)
    for _ in range(3):
        flight = page.start()
        assert flight.quarantined == set()
        flight.begin(RENDERING, at)
        flight.end(RENDERING, at)
        flight.begin(TRACKING, at)
    assert page.start().quarantined == {11}


def test_crashes_of_all_works_count_together() -> None:
    page, at = Page(), group(11)
    for work in (TRACKING, RENDERING, TRACKING):
        page.die(at, work)
    assert page.start().quarantined == {11}


def test_two_that_kill_by_turns_are_both_quarantined() -> None:
    page = Page()
    for _ in range(3):
        page.die(group(11), TRACKING)
        page.die(group(40), RENDERING)
    assert page.start().quarantined == {11, 40}


def test_crashes_with_nothing_in_flight_blame_nobody() -> None:
    page = Page()
    for _ in range(5):
        flight = page.start()
        flight.begin(RENDERING, group(11))
        flight.end(RENDERING, group(11))
    assert page.crash() is None


def test_who_waits_is_not_to_blame_for_what_others_die_of() -> None:
    page, at = Page(), group(11)
    for _ in range(4):
        flight = page.start()
        flight.begin(TRACKING, at)
        with flight.waiting():
            # As if the process died here.
            during = bytes(page.bytes)
        after = bytes(page.bytes)
        page.bytes[:] = during
        assert page.crash() is None
        page.bytes[:] = after
        assert page.crash() is not None
        page.start().stop()


def test_an_error_within_is_a_crash() -> None:
    page, at = Page(), group(11)
    with pytest.raises(Killed):
        for _ in page.start().each(TRACKING, at):
            raise Killed
    assert page.crash() == Crash(11, 11, TRACKING, 1, is_quarantined=False)


def test_who_is_cancelled_while_waiting_died_of_nothing() -> None:
    """A disk that fails ends the process while the tracker has a block hashed."""
    page = Page()
    flight = page.start()
    flight.begin(TRACKING, group(11))
    with pytest.raises(asyncio.CancelledError), flight.waiting():
        raise asyncio.CancelledError
    assert page.crash() is None


def test_an_error_of_what_was_waited_for_is_a_crash() -> None:
    page = Page()
    flight = page.start()
    flight.begin(TRACKING, group(11))
    with pytest.raises(Killed), flight.waiting():
        raise Killed
    assert page.crash() is not None


def test_an_orderly_end_forgets_suspects_and_keeps_the_quarantine() -> None:
    page = Page()
    for _ in range(3):
        page.die(group(7))
    for _ in range(2):
        page.die(group(11))
    page.start().stop()
    page.die(group(11))
    flight = page.start()
    assert flight.crash is not None
    assert (flight.crash.crashes, flight.quarantined) == (1, {7})


def test_what_the_page_says_of_another_journal_or_of_lost_records_is_not_believed() -> None:
    page = Page()
    for seq in (11, 11, 11, 8):
        page.die(group(seq))
    page.start()
    kept = bytes(page.bytes)
    for head, epoch, quarantined, parts in (
        (11, EPOCH, {11}, 2),
        (10, EPOCH, set(), 2),
        (7, EPOCH, set(), 1),
        (11, "f" * 16, set(), 1),
    ):
        page.bytes[:] = kept
        flight = page.start(head=head, epoch=epoch)
        assert (flight.quarantined, len(flight.parts(group(8, 2)))) == (quarantined, parts)


@pytest.mark.parametrize("byte", [0, 1, 0xFF])
def test_a_page_of_anything_is_an_empty_one(byte: int) -> None:
    page = Page()
    page.bytes[:] = bytes([byte]) * PAGE_BYTES
    flight = page.start()
    assert (flight.crash, flight.quarantined) == (None, set())
    page.die(group(11))
    assert page.crash() is not None


def test_every_damaged_byte_of_the_table_empties_it() -> None:
    page = Page()
    for seq in (11, 11, 11, 20):
        page.die(group(seq))
    page.start()
    kept = bytes(page.bytes)
    used = len(kept.rstrip(b"\0"))
    for place in range(24, used):
        page.bytes[:] = kept
        page.bytes[place] ^= 0x10
        assert page.start().quarantined == set()


def test_a_mark_that_is_no_mark_is_nothing() -> None:
    page = Page()
    page.start()
    for first, last, work in ((0, 5, 1), (6, 5, 1), (5, 1_001, 1), (5, 5, 0), (5, 5, 3)):
        struct.pack_into("<QQQ", page.bytes, 0, first, last, work)
        assert page.crash() is None


def test_the_page_holds_the_newest_when_there_are_very_many() -> None:
    page = Page()
    for seq in range(1, 452):
        for _ in range(3):
            page.die(group(seq))
    for seq in range(500, 600):
        page.die(group(seq))
    flight = page.start()
    assert flight.quarantined == set(range(52, 452))
    assert [seq for seq in range(500, 600) if len(flight.parts(group(seq - 1, 2))) == 2][-1] == 599


def renderer() -> Renderer:
    return Renderer(
        network="test",
        epoch=EPOCH,
        routes=Routes("factom", {}, ()),
        chains=ChainFilter(),
        format="protobuf",
    )


def test_rendering_one_by_one_gives_the_same_messages() -> None:
    page = Page()
    mixed = Group(11, 17, (*group(11, 3).runs, Run("udp/2", 9, 2, frame(b"") + frame(b"\xff"))))
    mixed = mixed._replace(runs=(*mixed.runs, *group(16, 2).runs))
    expected = renderer().render(mixed)
    page.die(mixed)
    flight = page.start()
    assert len(flight.parts(mixed)) == 7
    found = carefully(renderer(), mixed, flight)
    told = [(m.seq, m.id, m.attributes, m.data) for m in found.messages]
    assert told == [(m.seq, m.id, m.attributes, m.data) for m in expected.messages]
    assert found._replace(messages=()) == expected._replace(messages=())
    assert page.crash() is None


def test_where_rendering_dies_is_known() -> None:
    page = Page()
    for crashes, at in enumerate((Group(3, 4, (*group(3).runs, BROKEN)), Group(4, 4, (BROKEN,)))):
        with pytest.raises(ProtobufError):
            carefully(renderer(), at, page.start())
        assert page.crash() == Crash(at.first, 4, RENDERING, crashes + 1, is_quarantined=False)


def quarantine(page: Page, seq: int) -> Flight:
    for _ in range(3):
        page.die(group(seq))
    return page.start()


def test_a_dead_letter_with_the_bytes_takes_the_place_of_a_quarantined_record() -> None:
    flight = quarantine(Page(), 12)
    found = carefully(renderer(), group(11, 3), flight)
    assert [message.seq for message in found.messages] == [11, 12, 13]
    letter = DeadLetter.FromString(found.messages[1].data)
    assert found.messages[1].kind is Kind.DEAD_LETTER
    assert (letter.reason, letter.payload, letter.peer) == ("quarantined", event(12), "tcp")
    assert "died" in letter.sentence
    again = carefully(renderer(), group(11, 3), flight)
    assert [message.id for message in again.messages] == [message.id for message in found.messages]


def test_a_damaged_group_is_told_as_such_whatever_is_quarantined_in_it() -> None:
    flight = quarantine(Page(), 11)
    for last in (11, 13):
        found: Rendered = carefully(renderer(), Group(11, last, (), "no checksum"), flight)
        (message,) = found.messages
        assert DeadLetter.FromString(message.data).reason == "journal-damaged"


# The tracker


async def test_nothing_is_in_flight_when_others_than_the_tracker_work() -> None:
    page, journal, maker = Page(), MemoryJournal(), Maker(1)
    flight = page.start()
    tracker = Tracker(journal, Metrics(), network="test", bounds=Bounds(), flight=flight)
    blocks = [maker.block() for _ in range(4)]
    assert max(map(len, blocks)) > 64 * 1024, "one at least is hashed in a thread"
    async with during(tracker.run()):
        await journal.append([Run("tcp/1", 1, len(blocks), b"".join(blocks))])
        caught_up, seen = asyncio.create_task(tracker.caught_up()), 0
        while not caught_up.done():
            await asyncio.sleep(0)
            assert not any(page.bytes[:24])
            seen += 1
    assert seen > len(blocks)


async def test_the_tracker_leaves_a_quarantined_record_alone_and_dies_at_others() -> None:
    page = Page()
    for _ in range(3):
        journal = MemoryJournal()
        await journal.append([*group(1, 2).runs, BROKEN, *group(4, 2).runs])
        tracker = Tracker(
            journal, Metrics(), network="test", bounds=Bounds(), flight=page.start(head=5)
        )
        with pytest.raises(ProtobufError):
            await asyncio.wait_for(tracker.run(), 10)
    flight = page.start(head=5)
    assert flight.quarantined == {3}
    tracker = Tracker(journal, Metrics(), network="test", bounds=Bounds(), flight=flight)
    async with during(tracker.run()):
        await asyncio.wait_for(tracker.caught_up(), 10)


# The file


def test_a_crash_is_known_at_the_next_start_and_an_orderly_end_is_none(tmp_path: Path) -> None:
    for number in range(3):
        with (
            pytest.raises(StorageDamaged),
            open_flight(tmp_path, EPOCH, 20, Metrics()) as flight,
        ):
            assert (flight.crash is None) == (number == 0)
            flight.begin(RENDERING, group(11))
            raise StorageDamaged("an end that is not in order")
    metrics = Metrics()
    with open_flight(tmp_path, EPOCH, 20, metrics) as flight:
        assert flight.quarantined == {11}
        flight.begin(RENDERING, group(12))
    assert metrics.registry.get_sample_value("bridge_records_quarantined") == 1
    with open_flight(tmp_path, EPOCH, 20, Metrics()) as flight:
        assert (flight.crash, flight.quarantined) == (None, {11})


@pytest.mark.parametrize("size", [0, 1, PAGE_BYTES - 1, PAGE_BYTES, PAGE_BYTES + 1])
def test_whatever_the_file_holds_the_bridge_starts(tmp_path: Path, size: int) -> None:
    (tmp_path / "in-flight").write_bytes(b"\x07" * size)
    with pytest.raises(Killed), open_flight(tmp_path, EPOCH, 20, Metrics()) as flight:
        assert (flight.crash, flight.quarantined) == (None, set())
        flight.begin(RENDERING, group(11))
        raise Killed
    assert (tmp_path / "in-flight").stat().st_size == PAGE_BYTES
    with open_flight(tmp_path, EPOCH, 20, Metrics()) as flight:
        assert flight.crash is not None


def test_a_page_that_cannot_be_kept_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "in-flight").mkdir()
    with open_flight(tmp_path, EPOCH, 20, Metrics()) as flight:
        for part in flight.each(RENDERING, group(11)):
            assert part == group(11)
