"""`app`: what the tracker makes way for."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from bridge.app import _make_way
from bridge.health import Health
from bridge.metrics import Metrics
from bridge.stages.intake import Intake
from tests.doubles import MemoryJournal


class Resting:
    """Of a lane, what is asked here."""

    def __init__(self) -> None:
        self.at_rest = asyncio.Event()


def _intake() -> Intake:
    return Intake(
        MemoryJournal(), Metrics(), Health(), network="test", max_bytes=1_000, delay_seconds=0
    )


async def test_it_waits_until_every_lane_is_at_rest() -> None:
    lanes: Any = (Resting(), Resting())
    way = asyncio.create_task(_make_way(_intake(), lanes, 60))
    for lane in lanes:
        await asyncio.sleep(0.01)
        assert not way.done()
        lane.at_rest.set()
    await asyncio.wait_for(way, 1)


async def test_it_waits_no_longer_than_it_is_told() -> None:
    lanes: Any = (Resting(),)
    began = time.monotonic()
    await _make_way(_intake(), lanes, 0.02)
    assert time.monotonic() - began >= 0.02
    await asyncio.wait_for(_make_way(_intake(), lanes, 0), 1)
