"""`stages.publish`: one lane from the journal to a broker."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest

from bridge.core.claim import size
from bridge.core.framing import frame
from bridge.core.render import Renderer
from bridge.core.routing import ChainFilter, Routes
from bridge.errors import MessageRefused, SinkFault, SinkUnavailable, SinkWedged
from bridge.health import Health
from bridge.metrics import Metrics
from bridge.model import Group, Kind, Run, Tail
from bridge.pb.bridge.v1.dead_letter_pb2 import DeadLetter
from bridge.pb.bridge.v1.gap_alert_pb2 import GapAlert
from bridge.pb.eventmessages.factomEvents_pb2 import FactomEvent
from bridge.stages.publish import Lane
from bridge.stages.rendering import Rendering
from tests.doubles import MemoryJournal, ScriptedSink
from tests.support.events import small_capture
from tests.support.waiting import during, until


class Bench:
    """A lane between a journal and a sink, with what can be read off it."""

    def __init__(self, sink: ScriptedSink | None = None, step_bytes: int = 1_000_000) -> None:
        self.step_bytes = step_bytes
        self.journal = MemoryJournal()
        self.sink = sink or ScriptedSink()
        self.health, self.metrics = Health(), Metrics()
        renderer = Renderer(
            network="test",
            epoch="e",
            routes=Routes("factom", {}, ()),
            chains=ChainFilter(),
            format="protobuf",
        )
        self.rendering = Rendering(renderer, 2)
        self.lane = self.lane_to(self.sink)

    def lane_to(self, sink: ScriptedSink) -> Lane:
        waits = (0.001, 0.002)
        return Lane(
            self.journal,
            self.rendering,
            sink,
            self.metrics,
            self.health,
            waits=waits,
            step_bytes=self.step_bytes,
        )

    def accept(self, *payloads: bytes) -> None:
        first = self.journal.head + 1
        run = Run("tcp/1", 5, len(payloads), b"".join(map(frame, payloads)))
        self.journal.put(Group(first, first + len(payloads) - 1, (run,)))

    @property
    def position(self) -> int:
        return self.journal.position(self.sink.name)

    async def all_published(self) -> None:
        await until(lambda: self.position == self.journal.head)

    @property
    def sequence(self) -> list[int]:
        return [message.seq for message in self.sink.acknowledged]

    def counted(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"bridge_{name}", labels) or 0


@asynccontextmanager
async def publishing(bench: Bench) -> AsyncIterator[None]:
    async with during(bench.lane.run()):
        yield


def event(number: int, *, content: int = 0) -> bytes:
    entry = {"hash": number.to_bytes(32, "big"), "content": bytes(content)}
    return FactomEvent(entryReveal={"entry": entry}).SerializeToString()


def id_of(bench: Bench, payload: bytes) -> str:
    run = Run("tcp/1", 5, 1, frame(payload))
    return bench.rendering._renderer.render(Group(1, 1, (run,))).messages[0].id


def events(numbers: Iterable[int]) -> list[bytes]:
    return [event(number) for number in numbers]


async def test_what_the_journal_holds_and_gets_is_published_in_order() -> None:
    bench = Bench()
    for _ in range(3):
        bench.accept(*events(range(4)))
    async with publishing(bench):
        await bench.all_published()
        bench.accept(*events(range(2)))
        await bench.all_published()
    assert bench.sequence == list(range(1, 15))
    assert bench.counted("messages_published_total", sink="scripted", kind="entry-reveal") == 14
    assert bench.lane.lag == 0


async def test_a_recording_is_published_whole_and_what_gives_no_message_is_counted() -> None:
    bench, payloads = Bench(), small_capture("tcp-json-once").payloads()
    for start in range(0, len(payloads), 50):
        bench.accept(*payloads[start : start + 50])
    async with publishing(bench):
        await bench.all_published()
    empty = sum(b'"Event":null' in payload for payload in payloads)
    assert empty > 0
    assert bench.counted("events_left_out_total", sink="scripted", reason="empty") == empty
    assert len(bench.sequence) == len(payloads) - empty
    assert bench.sequence == sorted(bench.sequence)


async def test_a_lane_goes_on_behind_its_checkpoint_also_within_a_group() -> None:
    bench = Bench()
    bench.accept(*events(range(5)))
    bench.journal.checkpoint("scripted", 3)
    async with publishing(bench):
        await bench.all_published()
    assert bench.sequence == [4, 5]


async def test_the_checkpoint_moves_only_when_the_broker_has_acknowledged() -> None:
    bench = Bench()
    bench.sink.answers.clear()
    bench.accept(*events(range(3)))
    async with publishing(bench):
        await until(lambda: bench.sink.sent == 3)
        bench.accept(*events(range(3)))
        await asyncio.sleep(0.01)
        # One batch at a time: what comes next waits for the acknowledgement too.
        assert (bench.sink.sent, bench.position, bench.lane.lag) == (3, 0, 6)
        assert bench.lane.lag_seconds > 0
        bench.sink.answer_once()
        await until(lambda: bench.sink.sent == 6)
        await asyncio.sleep(0.01)
        assert (bench.position, bench.lane.lag) == (3, 3)
        bench.sink.answer_once()
        await bench.all_published()
        assert bench.lane.lag_seconds == 0
    assert bench.sequence == list(range(1, 7))


async def test_of_what_waits_one_batch_at_a_time_is_sent() -> None:
    bench = Bench(step_bytes=0)
    bench.sink.answers.clear()
    for _ in range(3):
        bench.accept(*events(range(2)))
    async with publishing(bench):
        for acknowledged in (0, 2, 4):
            await until(lambda: bench.sink.sent > bench.position)
            await asyncio.sleep(0.01)
            assert (bench.sink.sent, bench.position) == (acknowledged + 2, acknowledged)
            bench.sink.answer_once()
        await bench.all_published()
    assert bench.sequence == list(range(1, 7))


async def test_a_group_without_messages_moves_the_checkpoint_too() -> None:
    bench = Bench()
    bench.accept(b"", b"")
    async with publishing(bench):
        await bench.all_published()
    assert bench.sequence == []


async def test_a_lane_cancelled_in_a_sending_closes_its_sink_and_keeps_its_checkpoint() -> None:
    bench = Bench()
    bench.sink.answers.clear()
    bench.accept(*events(range(3)))
    async with publishing(bench):
        await until(lambda: bench.sink.sent == 3)
    assert (bench.position, bench.sink.is_open) == (0, False)
    bench.sink.answers.set()
    async with publishing(bench):
        await bench.all_published()
    assert bench.sequence == [1, 2, 3]


@pytest.mark.parametrize("error", [SinkUnavailable("away"), SinkFault("no rights")])
async def test_after_a_failure_all_is_sent_again_from_the_checkpoint_with_the_same_ids(
    error: SinkUnavailable | SinkFault,
) -> None:
    bench = Bench()
    bench.sink.sendings.extend([None, error, error])
    bench.accept(*events([1, 2]))
    async with publishing(bench):
        await bench.all_published()
        bench.accept(*events([3, 4]))
        await bench.all_published()
    assert bench.sequence == [1, 2, 3, 4]
    assert [m.id for m in bench.sink.acknowledged] == [id_of(bench, event(n)) for n in (1, 2, 3, 4)]
    assert bench.sink.opened == 3
    assert bench.counted("sink_errors_total", sink="scripted", code=error.code) == 2
    assert bench.counted("dead_letters_total", sink="scripted", reason="refused") == 0


async def test_a_sink_that_does_not_open_is_tried_until_it_does_and_health_tells() -> None:
    bench = Bench()
    parts = bench.health.parts
    bench.sink.openings.extend([SinkUnavailable("away")] * 100_000)
    bench.accept(*events([1]))
    async with publishing(bench):
        await until(lambda: "scripted" in parts and parts["scripted"].state == "sink_unavailable")
        bench.sink.openings = deque([SinkFault("no topic")] * 100_000)
        await until(lambda: parts["scripted"].state == "sink_fault")
        assert parts["scripted"].cause == "no topic"
        assert bench.counted("sink_up", sink="scripted") == 0
        bench.sink.openings.clear()
        await bench.all_published()
        assert parts["scripted"].ready
        assert bench.counted("sink_up", sink="scripted") == 1
    assert bench.sequence == [1]


@pytest.mark.parametrize("refused", [[0], [1], [3], [0, 1], [0, 2, 3], [0, 1, 2, 3]])
async def test_a_refused_message_is_a_dead_letter_in_its_place_and_the_others_go_on(
    refused: list[int],
) -> None:
    bench = Bench()
    payloads = events(range(4))
    bench.sink.refused_ids = {id_of(bench, payloads[place]) for place in refused}
    bench.accept(*payloads)
    async with publishing(bench):
        await bench.all_published()
    assert bench.sequence == [1, 2, 3, 4]
    letters = [m for m in bench.sink.acknowledged if m.kind is Kind.DEAD_LETTER]
    assert [letter.seq - 1 for letter in letters] == refused
    for letter in letters:
        told = DeadLetter.FromString(letter.data)
        assert (told.reason, told.sink, told.kind) == ("refused", "scripted", "entry-reveal")
        assert "scripted refusal" in told.sink_error
    dead = bench.counted("dead_letters_total", sink="scripted", reason="refused")
    assert dead == len(refused)


async def test_a_sink_that_refuses_the_dead_letter_is_at_fault_and_nothing_is_skipped() -> None:
    bench = Bench()
    bench.sink.sendings.extend([MessageRefused(1, "no"), MessageRefused(0, "no"), None])
    bench.accept(*events(range(3)))
    async with publishing(bench):
        await bench.all_published()
    assert bench.sequence == [1, 2, 3]
    assert bench.counted("sink_errors_total", sink="scripted", code="sink_fault") == 1


async def test_a_message_over_the_limit_is_published_as_a_claim_check_in_its_place() -> None:
    bench = Bench(ScriptedSink(broker_bytes=5_000))
    large = event(2, content=10_000)
    bench.accept(event(1), large, event(3))
    async with publishing(bench):
        await bench.all_published()
    assert bench.sequence == [1, 2, 3]
    check = bench.sink.acknowledged[1]
    assert check.attributes["dataref"] == f"double:{check.id}"
    assert check.data == b""
    assert check.id == id_of(bench, large)
    stored = bench.sink.aside[check.id]
    assert stored == FactomEvent.FromString(large).entryReveal.SerializeToString()
    assert check.attributes["datasize"] == str(len(stored))
    assert bench.counted("claim_checks_total", sink="scripted") == 1


async def test_a_limit_lowered_while_running_gives_claim_checks_and_no_dead_letter() -> None:
    bench = Bench()
    async with publishing(bench):
        await until(lambda: bench.sink.is_open)
        bench.sink.broker_bytes = 5_000
        bench.accept(event(1), event(2, content=9_000), event(3), event(4, content=9_000))
        await bench.all_published()
    assert bench.sequence == [1, 2, 3, 4]
    assert {m.kind for m in bench.sink.acknowledged} == {Kind.ENTRY_REVEAL}
    assert ["dataref" in m.attributes for m in bench.sink.acknowledged] == [False, True] * 2
    assert all(size(m) <= 5_000 for m in bench.sink.acknowledged)


async def test_the_next_batch_is_prepared_while_one_is_under_way() -> None:
    bench = Bench(step_bytes=1)
    bench.sink.answers.clear()
    bench.accept(*events(range(3)))
    bench.accept(*events(range(2)))
    async with publishing(bench):
        await until(lambda: bench.sink.prepared == [1, 4])
        assert (bench.sink.sent, bench.position) == (3, 0)
        bench.sink.answers.set()
        await bench.all_published()
    assert bench.sequence == [1, 2, 3, 4, 5]


async def test_nothing_is_prepared_behind_what_is_not() -> None:
    """It could overtake: what is too large is first stored beside, which takes time."""
    bench = Bench(ScriptedSink(broker_bytes=5_000), step_bytes=1)
    bench.sink.answers.clear()
    for number in range(4):
        bench.accept(event(number, content=10_000 if number == 1 else 10))
    async with publishing(bench):
        await until(lambda: bench.sink.sent == 1)
        bench.sink.answer_once()
        await until(lambda: bench.sink.sent == 2)
        assert bench.sink.prepared == [1]
        bench.sink.answers.set()
        await bench.all_published()
    assert bench.sequence == [1, 2, 3, 4]
    assert bench.sink.prepared == [1, 3, 4]


async def test_what_one_commit_held_is_sent_in_steps() -> None:
    """Else the memory of a lane would depend on what came at once."""
    bench = Bench(step_bytes=600_000)
    bench.accept(*(event(number, content=100_000) for number in range(20)))
    async with publishing(bench):
        await bench.all_published()
    assert bench.sequence == list(range(1, 21))
    assert bench.sink.prepared == [1, 7, 13, 19]


async def test_many_small_events_are_fewer_to_a_step() -> None:
    bench = Bench(step_bytes=500_000)
    for _ in range(4):
        bench.accept(*events(range(2_000)))
    async with publishing(bench):
        await bench.all_published()
    assert bench.sequence == list(range(1, 8_001))
    assert bench.sink.prepared == [1, 2_001, 4_001, 6_001]


async def test_a_lane_that_is_down_never_delays_another() -> None:
    bench = Bench()
    dead = ScriptedSink("dead")
    dead.answers.clear()
    bench.accept(*events(range(3)))
    async with during(bench.lane_to(dead).run()), publishing(bench):
        await until(lambda: dead.sent == 3)
        await bench.all_published()
        bench.accept(*events(range(3)))
        await bench.all_published()
    assert bench.sequence == list(range(1, 7))
    assert bench.journal.position("dead") == 0


async def test_draining_ends_when_what_was_committed_is_published() -> None:
    bench = Bench()
    bench.sink.answers.clear()
    bench.accept(*events(range(3)))
    async with publishing(bench):
        draining = asyncio.create_task(bench.lane.drained())
        await until(lambda: bench.sink.sent == 3)
        assert not draining.done()
        bench.sink.answers.set()
        await asyncio.wait_for(draining, 1)


async def test_lanes_side_by_side_render_a_group_once() -> None:
    bench = Bench()
    bench.accept(*events([1]))
    (group,) = bench.journal.groups
    assert await bench.rendering.of(group) is await bench.rendering.of(group)
    kept = event(1, content=500_000)
    for _ in range(40):
        bench.accept(kept)
        await bench.rendering.of(bench.journal.groups[-1])
    assert len(bench.rendering._kept) <= 4


@pytest.mark.parametrize("ids_agree", [True, False])
async def test_what_the_broker_holds_beyond_the_checkpoint_is_not_sent_again(
    ids_agree: bool,
) -> None:
    bench, sent = Bench(), events(range(8))
    bench.accept(*sent)
    # A crash came between the acknowledgement of the fifth and the checkpoint. Another id under
    # that number is another journal's: nothing is left out for it.
    bench.sink.last = Tail(5, id_of(bench, sent[4]) if ids_agree else "0" * 32)
    async with publishing(bench):
        await bench.all_published()
    assert bench.sequence == ([6, 7, 8] if ids_agree else list(range(1, 9)))


@pytest.mark.parametrize("seq", [3, 99])
async def test_a_tail_behind_the_checkpoint_or_beyond_the_journal_changes_nothing(seq: int) -> None:
    bench, sent = Bench(), events(range(8))
    bench.accept(*sent)
    bench.journal.checkpoint(bench.sink.name, 4)
    bench.sink.last = Tail(seq, id_of(bench, sent[min(seq, 8) - 1]))
    async with publishing(bench):
        await bench.all_published()
    assert bench.sequence == [5, 6, 7, 8]


async def test_a_sink_that_keeps_us_waiting_is_not_called_ready() -> None:
    bench = Bench()
    bench.accept(event(1))
    bench.sink.answers.clear()
    async with publishing(bench):
        await until(lambda: "waiting" in {part.state for part in bench.health.parts.values()})
        assert not bench.health.ready
        assert bench.counted("sink_up", sink="scripted") == 0
        bench.sink.answers.set()
        await until(lambda: bench.health.ready)
        assert bench.counted("sink_up", sink="scripted") == 1


async def test_what_the_broker_lost_is_sent_again_and_told_once() -> None:
    bench, sent = Bench(), events(range(8))
    bench.accept(*sent)
    bench.journal.checkpoint(bench.sink.name, 8)
    bench.sink.last, bench.sink.lost = Tail(5, id_of(bench, sent[4])), True
    async with publishing(bench):
        await until(lambda: bench.position == bench.journal.head == 9)
    assert bench.sequence == [6, 7, 8, 9]
    alert = bench.sink.acknowledged[-1]
    assert alert.kind is Kind.GAP_ALERT
    assert GapAlert.FromString(alert.data).type == GapAlert.TYPE_SINK_REGRESSED
    assert bench.counted("sink_regressed_total", sink="scripted") == 1


async def test_what_the_broker_lost_and_the_journal_has_no_more_is_passed_over() -> None:
    bench, sent = Bench(), events(range(8))
    bench.accept(*sent)
    bench.journal.checkpoint(bench.sink.name, 8)
    bench.sink.last, bench.sink.lost = Tail(5, id_of(bench, sent[4])), True
    bench.journal.trims = True
    async with publishing(bench):
        await until(lambda: bench.position == 9)
        bench.journal.trims = False
        bench.accept(*events(range(2)))
        await bench.all_published()
    assert bench.sequence == [10, 11]


async def test_a_connection_that_is_lost_while_nothing_is_sent_is_noticed() -> None:
    bench = Bench()
    async with publishing(bench):
        await until(lambda: bench.health.ready)
        bench.sink.openings.extend([SinkUnavailable("away")] * 100_000)
        bench.sink.gone.set()
        await until(lambda: not bench.health.ready)
        bench.sink.gone.clear()
        bench.sink.openings.clear()
        await until(lambda: bench.health.ready)
        bench.accept(event(1))
        await bench.all_published()
    assert bench.sequence == [1]


async def test_the_age_of_what_waits_is_known_though_the_sink_never_opened() -> None:
    bench = Bench()
    bench.accept(event(1))
    bench.sink.openings.extend([SinkUnavailable("away")] * 100_000)
    async with publishing(bench):
        await until(
            lambda: bench.counted("sink_errors_total", sink="scripted", code="sink_unavailable") > 1
        )
        assert bench.lane.lag_seconds > 1
        bench.sink.openings.clear()
        await bench.all_published()
        assert bench.lane.lag_seconds == 0


async def test_a_wedged_broker_is_reported_to_whoever_can_restart_it() -> None:
    bench = Bench()
    restarts: list[int] = []
    bench.lane = Lane(
        bench.journal,
        bench.rendering,
        bench.sink,
        bench.metrics,
        bench.health,
        waits=(0.001, 0.002),
        when_wedged=lambda: restarts.append(1),
    )
    bench.accept(event(1))
    bench.sink.sendings.append(SinkWedged("acknowledges nothing"))
    async with publishing(bench):
        await bench.all_published()
    assert restarts == [1]
    assert bench.sequence == [1]
