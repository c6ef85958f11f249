"""SIGKILL at random moments, and at named points of the code."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

from tests.faults.ground import Ground
from tests.faults.tally import Tally
from tests.faults.victim import Victim

__all__ = ["POINTS", "at_points", "at_random"]

POINTS = {
    "append, before": 30,
    "write, half of it": 100,
    "fsync, before": 60,
    "fsync, after": 60,
    "segment, half of it": 40,
    "segment synced, before": 20,
    "segment synced, after": 20,
    "append, after": 30,
    "send, before": 20,
    "send, on its way": 20,
    "acknowledged": 20,
    "checkpoint noted": 20,
    "checkpoint written, before": 3,
    "checkpoint written, after": 3,
    "tracked, before": 2,
    "tracked, after": 2,
    "trim, before": 3,
    "trim, after": 3,
}
"""Up to which passing the process may be killed there."""

_VICTIMS = 3
"""Killed side by side, each with a journal of its own: starting Python takes most of the time."""

_TIMED_VICTIMS = 2
"""Where it is also asked how soon they are ready: no more of them than there are cores."""

_EARLIEST, _LATEST = 0.005, 0.3
"""Seconds after the feed began."""

_REACHED_SECONDS = 30


async def at_random(ground: Ground, tries: int, seed: int) -> Tally:
    """Kill bridges while they are fed, half of them while they still connect."""
    numbers = range(min(_TIMED_VICTIMS, tries))
    victims = [Victim(ground, "kill", seed + number, replayed=True) for number in numbers]
    shares = [len(range(number, tries, _TIMED_VICTIMS)) for number in numbers]
    return await _all(victims, [_at_random(*each) for each in zip(victims, shares, strict=True)])


async def _at_random(victim: Victim, tries: int) -> None:
    for number in range(tries):
        await victim.start(ready=number % 2 == 0)
        feed = asyncio.create_task(victim.feed.bursts(victim.bridge.feed_port))
        await asyncio.sleep(victim.random.uniform(_EARLIEST, _LATEST))
        told = 0
        if number % 4 == 0:
            told = (await asyncio.to_thread(victim.bridge.metrics)).accepted
        await asyncio.to_thread(victim.bridge.kill)
        await feed
        new = await asyncio.to_thread(victim.note)
        if told > new:
            victim.tally.broken.append(f"{told} were told as accepted, {new} are in the journal")
        victim.tried()


async def at_points(ground: Ground, tries: int, seed: int) -> Tally:
    """Kill bridges `tries` times at each point of `POINTS`."""
    names = [name for name in POINTS for _ in range(tries)]
    trims = [name for name in names if name.startswith("trim")]
    others = [name for name in names if name not in trims]
    victims = [Victim(ground, "point", seed + number, replayed=True) for number in range(_VICTIMS)]
    # Nothing is kept to be sent again, so that there is something to trim; nor for a replay.
    trimmed = Victim(ground, "trim", seed + _VICTIMS, {"BRIDGE_JOURNAL__REPLAY_BYTES": "0"})
    works = [_at_points(victim, others[n::_VICTIMS]) for n, victim in enumerate(victims)]
    return await _all([*victims, trimmed], [*works, _at_points(trimmed, trims)])


async def _at_points(victim: Victim, names: list[str]) -> None:
    bridge = victim.bridge
    for name in names:
        nth = victim.random.randint(1, POINTS[name])
        bridge.module = "tests.faults.points"
        bridge.environ |= {"FAULT_POINT": name, "FAULT_NTH": str(nth)}
        # It may be killed before it receives anything: some points are passed in starting.
        await asyncio.to_thread(bridge.launch)
        comparing = asyncio.create_task(victim.compare())
        feed = asyncio.create_task(victim.fed())
        try:
            code = await asyncio.to_thread(bridge.wait, _REACHED_SECONDS)
        except RuntimeError:
            victim.tally.broken.append(f"{name} was not passed {nth} times")
        else:
            if code != -signal.SIGKILL:
                victim.tally.broken.append(f"ended with {code} before {name}")
        await feed
        await comparing
        await asyncio.to_thread(victim.note)
        victim.tried()
    bridge.module = "bridge"


async def _all(victims: list[Victim], works: list[Coroutine[Any, Any, None]]) -> Tally:
    total = Tally()
    try:
        async with asyncio.TaskGroup() as tasks:
            for work in works:
                tasks.create_task(work)
        for victim in victims:
            await victim.finish()
            tally = await victim.check()
            if tally.rewinds > tally.tries:
                tally.broken.append(f"{tally.rewinds} batches twice after {tally.tries} kills")
            total.add(tally)
        total.notes.append(f"at most {total.rewinds} batches twice in a topic of Kafka")
    finally:
        for victim in victims:
            victim.bridge.kill()
    return total
