"""The journal's files are cut short, or one bit of them is turned, while the bridge is down.

What the disk no longer has cannot be delivered, and is told beside the table instead of counted as
lost. What is held: no message with other data than were sent, none twice, none out of order, and a
bridge that either delivers or ends with 74, at each start the same.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from nats.js.errors import NotFoundError

from tests.brokers.process import HOST, free_port
from tests.faults.feed import Feed
from tests.faults.ground import Ground
from tests.faults.tally import Tally, wrong
from tests.faults.victim import Launched
from tests.support.consumers import Read, nats_client, read_stream
from tests.support.journal_file import JournalFile

__all__ = ["cut", "flipped"]

_EVENTS = 400
_SIDE_BY_SIDE = 3
_DELIVER_SECONDS = 15
_STORAGE = 74
_FILES = ("journal.db", "journal.db-wal", "segment-000000000001")


class _Copy(NamedTuple):
    """A journal with undelivered events, the way a crash or an orderly end leaves it."""

    folder: Path
    ids: list[str]
    """Of its records, in order."""


class _Damage(NamedTuple):
    copy: _Copy
    file: str
    at: int
    bit: int | None
    """None: the file is cut at `at`."""

    def do(self, folder: Path) -> None:
        path = folder / self.file
        with path.open("r+b") as file:
            if self.bit is None:
                file.truncate(self.at)
                return
            file.seek(self.at)
            (byte,) = file.read(1)
            file.seek(self.at)
            file.write(bytes([byte ^ 1 << self.bit]))

    def __str__(self) -> str:
        what = "cut" if self.bit is None else f"bit {self.bit} turned"
        return f"{self.file} {what} at {self.at}"


async def cut(ground: Ground, tries: int, seed: int) -> Tally:
    """Cut a file at `tries` places."""
    return await _all(ground, tries, seed, flips=False)


async def flipped(ground: Ground, tries: int, seed: int) -> Tally:
    """Turn one bit at `tries` places."""
    return await _all(ground, tries, seed, flips=True)


async def _all(ground: Ground, tries: int, seed: int, *, flips: bool) -> Tally:
    copies = [await _journal(ground, seed, tidy=tidy) for tidy in (False, True)]
    damages = _damages(copies, tries, random.Random(seed), flips=flips)
    total, outcomes = Tally(), Counter[str]()

    async def worker() -> None:
        for damage in damages:
            folder = ground.folder("damaged")
            tally, outcome = await _one(ground.nats.url, folder, damage)
            shutil.rmtree(folder)
            total.add(tally)
            ground.tries += 1
            outcomes[f"{damage.file} {outcome}"] += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(_SIDE_BY_SIDE):
            tasks.create_task(worker())
    total.notes.append(", ".join(f"{what}: {count}" for what, count in sorted(outcomes.items())))
    return total


async def _journal(ground: Ground, seed: int, *, tidy: bool) -> _Copy:
    """Return a journal whose events no broker has taken: all in the WAL, or all in the file."""
    folder = ground.folder("intact")
    feed = Feed(seed)
    away = {"BRIDGE_NATS__SERVERS": f"nats://{HOST}:{free_port()}"}
    with Launched(folder, away) as bridge:
        await feed.some(bridge.feed_port, _EVENTS)
        await asyncio.to_thread(bridge.wait_for, lambda: _accepted(bridge), 10, "accept")
        await asyncio.to_thread(bridge.stop if tidy else bridge.kill)
    ids = [record.id for record in JournalFile(folder).stored()]
    return _Copy(folder, ids)


def _accepted(bridge: Launched) -> bool:
    return bridge.metrics().accepted == _EVENTS


def _damages(
    copies: list[_Copy], tries: int, chosen: random.Random, *, flips: bool
) -> Iterator[_Damage]:
    """Yield damages, the files of both copies in turn."""
    files = [
        (copy, name)
        for copy in copies
        for name in _FILES
        if (copy.folder / name).exists() and (copy.folder / name).stat().st_size
    ]
    for number in range(tries):
        copy, name = files[number % len(files)]
        at = chosen.randrange((copy.folder / name).stat().st_size)
        yield _Damage(copy, name, at, chosen.randrange(8) if flips else None)


async def _one(url: str, folder: Path, damage: _Damage) -> tuple[Tally, str]:
    """Start a bridge on a damaged copy; return the figures, and what became of it."""
    for name in _FILES:
        if (damage.copy.folder / name).exists():
            shutil.copy(damage.copy.folder / name, folder)
    damage.do(folder)
    names = {"BRIDGE_PREFIX": folder.name, "BRIDGE_NATS__STREAM": folder.name}
    bridge = Launched(folder, {"BRIDGE_NATS__SERVERS": url, **names})
    tally = Tally(tries=1)
    began = time.monotonic()
    ran = await _runs(bridge, tally, damage)
    if ran:
        tally.recovered(time.monotonic() - began)
    # A supervisor starts it again: it must be able to do that for ever.
    elif await _runs(bridge, tally, damage):
        tally.broken.append(f"{damage}: ended, and ran at the next start")
    held = await _held(url, folder.name)
    said = {"dead-letter", "gap-alert"}
    ids = [message.id for message in held if message.kind not in said]
    places = [damage.copy.ids.index(id_) for id_ in ids if id_ in damage.copy.ids]
    tally.accepted = len(places)
    tally.wrong = wrong(held) + len(ids) - len(places)
    tally.duplicates = len(ids) - len(set(ids))
    tally.reordered = sum(a >= b for a, b in pairwise(places))
    if not ran:
        return tally, "ended with 74"
    if len(places) == len(damage.copy.ids):
        return tally, "delivered all"
    told = len(ids) < len(held) or (folder / "journal.db-wal.damaged").exists()
    return tally, f"delivered a part, {'and told of the rest' if told else 'and told nothing'}"


async def _runs(bridge: Launched, tally: Tally, damage: _Damage) -> bool:
    """Whether it delivers what it has; else it must have ended with 74. It is ended here."""
    try:
        await asyncio.to_thread(bridge.start)
        await bridge.delivered(0, _DELIVER_SECONDS)
    except (RuntimeError, OSError):
        if bridge.pid is not None:
            tally.broken.append(f"{damage}: runs, and delivers nothing more")
        elif (code := await asyncio.to_thread(bridge.wait)) != _STORAGE:
            tally.broken.append(f"{damage}: ended with {code}")
        return False
    finally:
        await asyncio.to_thread(bridge.kill)
    return True


async def _held(url: str, stream: str) -> list[Read]:
    """Return what the stream holds, if there is one, and delete it."""
    async with nats_client(url) as client:
        jetstream = client.jetstream()
        try:
            await jetstream.stream_info(stream)
        except NotFoundError:
            return []
        found = await read_stream(url, stream)
        await jetstream.delete_stream(stream)
    return found
