"""A lane whose broker is away: it tries for ever, and ever more seldom (delivery.md, D10)."""

from __future__ import annotations

import inspect
import time

from bridge.errors import SinkUnavailable
from bridge.stages.publish import Lane
from tests.support.waiting import until
from tests.unit.test_publish import Bench, event, publishing

_FIRST, _LONGEST, _TRIES = 0.02, 0.16, 10


def _lane(bench: Bench) -> Lane:
    return Lane(
        bench.journal,
        bench.rendering,
        bench.sink,
        bench.metrics,
        bench.health,
        waits=(_FIRST, _LONGEST),
    )


async def test_attempts_become_fewer_and_never_end() -> None:
    bench = Bench()
    bench.lane = _lane(bench)
    bench.sink.openings.extend([SinkUnavailable("away")] * 1_000)
    bench.accept(event(1))
    began = time.monotonic()
    async with publishing(bench):
        await until(lambda: len(bench.sink.openings) <= 1_000 - _TRIES, seconds=30)
        # Each wait is at least half of what it could be: 10, 20, 40 ms, then 80 for ever.
        tried = 1_000 - len(bench.sink.openings)
        assert tried <= 4 + (time.monotonic() - began) / (_LONGEST / 2)
        bench.sink.openings.clear()
        await bench.all_published()


def test_the_waits_are_those_of_the_contract() -> None:
    assert inspect.signature(Lane).parameters["waits"].default == (0.1, 10.0)
