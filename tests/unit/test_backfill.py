"""`stages.backfill`: asking the node for what is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from bridge.core.heights import Gap, Heights, observe
from bridge.errors import NodeRefused, NodeUnavailable
from bridge.metrics import Metrics
from bridge.stages.backfill import Backfill
from tests.support.waiting import during, until


class Node:
    """Sends what it is asked for, but for the heights that it has not; or fails as told."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.asked: list[tuple[int, int]] = []
        self.lacks: set[int] = set()
        self.error: Exception | None = None

    async def replay(self, first: int, last: int) -> None:
        self.asked.append((first, last))
        if self.error is not None:
            raise self.error
        for height in range(first, last + 1):
            if height not in self.lacks:
                self.bench.came(height)


class Bench:
    """A tracker's state, a node, and the stage between them."""

    def __init__(self, *heights: int, grace: float = 0) -> None:
        self.state = Heights()
        for height in heights:
            self.came(height)
        self.node, self.metrics = Node(self), Metrics()
        self.stage = Backfill(
            self.node,
            lambda: self.state.gaps,
            self.metrics,
            grace_seconds=grace,
            page_heights=10,
            waits=(0.001, 0.002),
            arrival_seconds=0.01,
        )

    def came(self, height: int) -> None:
        self.state, _ = observe(self.state, height, 1)

    @property
    def gaps(self) -> tuple[Gap, ...]:
        return self.state.gaps

    def counted(self, outcome: str) -> float:
        name, labels = "bridge_replay_requests_total", {"outcome": outcome}
        return self.metrics.registry.get_sample_value(name, labels) or 0


async def test_open_gaps_are_asked_for_in_pages_until_they_are_filled() -> None:
    bench = Bench(1, 25, 30)
    async with during(bench.stage.run()):
        await until(lambda: not bench.gaps)
    assert bench.node.asked == [(2, 11), (12, 21), (22, 24), (26, 29)]
    assert bench.counted("came") == 4


async def test_a_gap_may_fill_by_itself_within_its_grace() -> None:
    bench = Bench(1, 4, grace=60)
    async with during(bench.stage.run()):
        await asyncio.sleep(0.05)
    assert bench.node.asked == []


async def test_a_page_that_does_not_come_keeps_no_other_waiting_and_is_asked_for_again() -> None:
    bench = Bench(1, 5, 8)
    bench.node.lacks = {2, 3, 4}
    async with during(bench.stage.run()):
        await until(lambda: [gap.first for gap in bench.gaps] == [2])
        bench.node.lacks = {3}
        await until(lambda: [gap.missing for gap in bench.gaps] == [((3, 3),)])
        bench.node.lacks.clear()
        await until(lambda: not bench.gaps)
    assert bench.counted("nothing-came") > 0


@pytest.mark.parametrize(
    "error", [NodeUnavailable("away"), NodeRefused("no")], ids=lambda error: type(error).__name__
)
async def test_a_node_that_fails_is_asked_again(error: NodeUnavailable | NodeRefused) -> None:
    bench = Bench(1, 5)
    bench.node.error = error
    async with during(bench.stage.run()):
        await until(lambda: bench.counted(error.code) > 2)
        bench.node.error = None
        await until(lambda: not bench.gaps)


def test_a_gap_of_a_million_heights_is_looked_at_in_parts() -> None:
    bench = Bench(1, 900_000)
    due: Callable[[], list[tuple[int, int]]] = bench.stage._due
    assert len(due()) == 1_000
    assert due()[0] == (2, 11)
