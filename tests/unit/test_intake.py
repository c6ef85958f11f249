"""`stages.intake`: from the receivers into the journal, whatever the disk does."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bridge.core.framing import frame
from bridge.errors import StorageDamaged, StorageFull
from bridge.health import Health
from bridge.journal import open_journal
from bridge.metrics import Metrics
from bridge.model import Group, Kind, Run
from bridge.pb.bridge.v1.gap_alert_pb2 import GapAlert
from bridge.ports import Journal
from bridge.settings import JournalSettings
from bridge.stages.intake import LONGEST_WAY_SECONDS, Intake
from tests.doubles import MemoryJournal
from tests.support.waiting import during, until

MIB = 1024 * 1024
LIMIT = 10_000
FULL = StorageFull("no space")


class Bench:
    def __init__(
        self, journal: Journal | None = None, patience: float = 20, limit: int = LIMIT
    ) -> None:
        self.memory = MemoryJournal()
        self.health, self.metrics = Health(), Metrics()
        self.intake = Intake(
            journal or self.memory,
            self.metrics,
            self.health,
            network="test",
            max_bytes=limit,
            delay_seconds=0.001,
            retry_seconds=0.001,
            patience_seconds=patience,
        )
        self.offered: list[Run] = []

    def offer(self, count: int = 1, size: int = 10) -> None:
        for _ in range(count):
            run = Run("tcp/1", len(self.offered), 1, frame(bytes(size)))
            self.offered.append(run)
            self.intake.offer(run)

    def ready(self) -> bool:
        return self.health.ready

    def congested(self) -> bool:
        return self.intake.congested

    def counted(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"bridge_{name}", labels) or 0


@asynccontextmanager
async def taking(bench: Bench) -> AsyncIterator[None]:
    async with during(bench.intake.run()):
        yield


async def test_runs_are_committed_in_the_order_offered_and_then_counted() -> None:
    bench = Bench()
    async with taking(bench):
        for count in (1, 5, 2):
            bench.offer(count)
            await asyncio.sleep(0.002)
        await asyncio.wait_for(bench.intake.drained(), 1)
    assert bench.memory.runs == bench.offered
    assert bench.counted("events_accepted_total", transport="tcp") == 8


async def test_what_comes_during_a_commit_is_the_next_commit() -> None:
    bench = Bench()
    bench.memory.open.clear()
    async with taking(bench):
        bench.offer(3)
        await until(lambda: len(bench.memory.attempts) == 1)
        bench.offer(5)
        await asyncio.sleep(0.01)
        assert bench.counted("events_accepted_total", transport="tcp") == 0
        bench.memory.open.set()
        await asyncio.wait_for(bench.intake.drained(), 1)
    assert [len(attempt) for attempt in bench.memory.attempts] == [3, 5]


async def test_a_full_disk_is_tried_again_with_the_same_batch_and_nothing_is_lost() -> None:
    bench = Bench()
    bench.memory.refusals.extend([FULL] * 4)
    async with taking(bench):
        bench.offer(3)
        await until(lambda: len(bench.memory.attempts) >= 2)
        assert bench.health.parts["journal"].state == "storage_full"
        assert not bench.ready()
        bench.offer(2)
        await asyncio.wait_for(bench.intake.drained(), 1)
        assert bench.ready()
    assert bench.memory.runs == bench.offered
    assert set(bench.memory.attempts[:5]) == {tuple(bench.offered[:3])}
    assert bench.counted("storage_refusals_total", code="storage_full") == 4
    assert not bench.intake.closed


async def _closed_for_a_while(bench: Bench) -> list[Run | GapAlert]:
    """Let the disk be full until the feed is closed; return what is in the journal afterwards."""
    shed: list[bool] = []
    bench.intake.shed = lambda: shed.append(bench.intake.closed)
    bench.memory.refusals.extend([FULL] * 100_000)
    async with taking(bench):
        bench.offer(2)
        await until(lambda: bool(bench.memory.attempts))
        bench.offer(1)
        await until(lambda: bench.intake.closed)
        await asyncio.sleep(0.01)
        bench.memory.refusals.clear()
        await until(lambda: not bench.intake.closed)
        await asyncio.wait_for(bench.intake.drained(), 1)
        bench.offer(1)
        await asyncio.wait_for(bench.intake.drained(), 1)
    assert shed == [True]
    return [run if run.peer != "bridge" else _alert(run) for run in bench.memory.runs]


def _alert(run: Run) -> GapAlert:
    kind, _, content = run.frames[5:].partition(b"\0")
    assert kind.decode() == Kind.GAP_ALERT
    alert = GapAlert.FromString(content)
    assert alert.type == GapAlert.TYPE_STORAGE
    return alert


def _states(*alerts: Run | GapAlert) -> list[Any]:
    return [alert.status for alert in alerts if isinstance(alert, GapAlert)]


async def test_a_disk_that_stays_full_closes_the_feed_which_is_told_at_once() -> None:
    bench = Bench(patience=0.01)
    bench.memory.has_reserve = True
    opened, *kept, over, last = await _closed_for_a_while(bench)
    assert [*kept, last] == bench.offered
    assert _states(opened, over) == [GapAlert.STATUS_OPENED, GapAlert.STATUS_RESOLVED]
    assert isinstance(opened, GapAlert)
    assert isinstance(over, GapAlert)
    assert (over.gap_id, over.opened_at) == (opened.gap_id, opened.opened_at)
    assert over.changed_at.ToNanoseconds() > opened.changed_at.ToNanoseconds()
    assert bench.counted("events_accepted_total", transport="bridge") == 2


async def test_what_could_not_even_be_told_is_told_when_there_is_room() -> None:
    bench = Bench(patience=0.01)
    *kept, opened, over, last = await _closed_for_a_while(bench)
    assert [*kept, last] == bench.offered
    assert _states(opened, over) == [GapAlert.STATUS_OPENED, GapAlert.STATUS_RESOLVED]


async def test_a_damaged_journal_ends_the_intake() -> None:
    bench = Bench()
    bench.memory.refusals.append(StorageDamaged("fsync failed"))
    with pytest.raises(StorageDamaged):
        async with taking(bench):
            bench.offer()
            await asyncio.sleep(0.05)
    assert len(bench.memory.attempts) == 1


async def test_with_too_much_waiting_it_is_congested_until_half_of_it_is_committed() -> None:
    bench, relieved = Bench(), []
    bench.memory.open.clear()
    async with taking(bench):
        bench.offer(9, size=1000)
        assert not bench.congested()
        bench.offer(1, size=1000)
        assert bench.congested()
        bench.intake.when_relieved(lambda: relieved.append(len(bench.memory.runs)))
        await until(lambda: bool(bench.memory.attempts))
        bench.offer(8, size=1000)
        assert relieved == []
        bench.memory.open.set()
        await asyncio.wait_for(bench.intake.drained(), 1)
        await until(lambda: bool(relieved))
    # The first commit leaves more than half of the limit waiting: too much for a relief.
    assert [len(attempt) for attempt in bench.memory.attempts] == [10, 8]
    assert relieved == [18]
    assert bench.memory.runs == bench.offered


async def test_reading_pauses_long_before_datagrams_are_refused() -> None:
    bench = Bench(limit=32 * MIB)
    seen = []
    for _ in range(32):
        bench.offer(size=MIB)
        seen.append((bench.intake.congested, bench.intake.full))
    assert seen.index((True, False)) == 7
    assert seen.index((True, True)) == 31


async def test_a_relief_is_called_once() -> None:
    bench, relieved = Bench(), []
    async with taking(bench):
        bench.intake.when_relieved(lambda: relieved.append(True))
        for _ in range(3):
            bench.offer()
            await asyncio.wait_for(bench.intake.drained(), 1)
            await asyncio.sleep(0)
    assert relieved == [True]


async def test_with_nothing_offered_it_is_drained() -> None:
    bench = Bench()
    await asyncio.wait_for(bench.intake.drained(), 1)
    bench.offer()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(bench.intake.drained(), 0.01)


async def test_cancelling_never_loses_a_commit_in_progress(tmp_path: Path) -> None:
    settings = JournalSettings(dir=tmp_path)
    async with open_journal(settings, Metrics()) as journal:
        bench = Bench(journal)
        begun = asyncio.Event()
        append = journal._commit
        loop = asyncio.get_running_loop()

        def slow(*arguments: Any) -> list[Group]:
            loop.call_soon_threadsafe(begun.set)
            return append(*arguments)

        journal._commit = slow  # type: ignore[method-assign, assignment]
        async with taking(bench):
            bench.offer(3)
            await begun.wait()
    async with open_journal(settings, Metrics()) as journal:
        (group,) = await journal.read(0, 1 << 30)
        assert list(group.runs) == bench.offered


async def test_what_can_wait_makes_way_while_much_is_to_be_committed_but_not_for_long() -> None:
    bench = Bench(limit=8 * MIB)
    bench.memory.open.clear()
    async with taking(bench):
        await bench.intake.make_way()
        bench.offer(size=MIB)
        began = time.monotonic()
        await bench.intake.make_way()
        assert time.monotonic() - began >= LONGEST_WAY_SECONDS
        way = asyncio.create_task(bench.intake.make_way())
        await asyncio.sleep(0.001)
        assert not way.done()
        began = time.monotonic()
        bench.memory.open.set()
        await way
        assert time.monotonic() - began < LONGEST_WAY_SECONDS
