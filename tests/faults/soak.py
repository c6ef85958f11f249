"""Runs a bridge for an hour: `python -m tests.faults.soak [--minutes 60] [--rate 200]`.

A simulated node sends blocks, commits and reveals; each minute a broker is killed or paused and
comes back. Looked at are memory, handles, threads and tasks; at the end, whether every record of
the journal is in both brokers, in order. Prints a table and the verdict, exits 1 if it is bad.

What is kept in memory is bounded by numbers, which would take hours to be reached: so it begins
with as many commits as the bridge remembers, as fast as it takes them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from tests.brokers.process import Broker, free_port, spawn
from tests.faults.ground import Ground
from tests.faults.tally import FORMAT, Tally, wrong
from tests.support.bridge_process import BridgeProcess
from tests.support.consumers import Read, without_repeats
from tests.support.journal_file import JournalFile
from tests.support.maker import Maker
from tests.support.sinks import Sinks

_FILL = 300_000
"""Commits in the beginning: more than are remembered (`core.seen`), or known to a sink."""
_EVENTS_PER_ENTRY = 4
"""Of a node: commit and reveal, each requested and accepted."""
_REPLAY_BYTES = 64 * 1024 * 1024
"""So small that the journal is trimmed nearly from the start."""
_EVERY_SECONDS = 10
_AWAY_SECONDS = 15
_BACK_SECONDS = 300
_QUIET_LAG = 1_000
_LOOKS = 20
_WARM_MINUTES = 10
_LEAST_MINUTES = 30
"""Less tells nothing of what grows."""
_MOST_MB_PER_HOUR = 1.0
_END_SECONDS = 120


class Sample(NamedTuple):
    """What the bridge's process has, `at` seconds after the filling."""

    at: float
    rss_mb: float
    pss_mb: float
    fds: int
    threads: int
    tasks: int
    journal_mb: float
    accepted: int
    lag: int
    quiet: bool
    """Both brokers are there and have all; then the counts are the least of several looks."""


class Soak:
    """One bridge, its node and its brokers."""

    def __init__(self, ground: Ground, minutes: int, rate: int) -> None:
        self._minutes, self._rate = minutes, rate
        self._sinks = Sinks(ground.kafka, ground.nats, "soak")
        for broker in (self._sinks.kafka, self._sinks.nats):
            broker.start_seconds = _BACK_SECONDS
        self._api = free_port()
        self.bridge = BridgeProcess(
            ground.folder("bridge"),
            {
                **FORMAT,
                **self._sinks.environ,
                "BRIDGE_NODE__URL": f"http://127.0.0.1:{self._api}/v2",
                "BRIDGE_JOURNAL__REPLAY_BYTES": str(_REPLAY_BYTES),
            },
        )
        self._emitted = ground.folder("emit") / "emit.log"
        self.samples: list[Sample] = []
        self.tally = Tally()
        self._quiet = False
        self._began = 0.0

    async def run(self) -> None:
        """Run it to its end, and compare what went in with what came out."""
        with self.bridge as bridge:
            await asyncio.to_thread(bridge.wait_ready)
            await self._fill()
            self._process = psutil.Process(bridge.pid)
            self._began = time.monotonic()
            node = self._node()
            try:
                await self._until_first_ends(self._flap(), self._sample())
                code = await asyncio.to_thread(node.wait, _END_SECONDS)
            finally:
                node.kill()
            metrics = await bridge.delivered(0, _END_SECONDS)
            sent = _FILL + self._sent()
            if code or metrics.accepted < sent:
                self.tally.broken.append(f"{metrics.accepted} accepted of {sent} sent ({code})")
            left_out = metrics.by("bridge_events_left_out_total", "sink")
            self.tally.accepted = metrics.accepted
            await asyncio.to_thread(bridge.stop)
        head = JournalFile(self.bridge.folder).head
        print(f"{head} records, left out {left_out}; comparing", file=sys.stderr, flush=True)
        held = await self._sinks.streamed()
        streamed = {each.seq for each in held}
        self.tally.wrong += _wrong(held)
        self.tally.reordered += _steps_back([each.seq for each in held])
        self.tally.duplicates = len(held) - len({each.id for each in held})
        del held
        topics = await self._sinks.in_topics()
        firsts = [without_repeats(each) for each in topics.values()]
        found = [read for each in firsts for read in each]
        self.tally.wrong += _wrong(found)
        self.tally.reordered += sum(_steps_back([read.seq for read in each]) for each in firsts)
        self.tally.repeats = sum(map(len, topics.values())) - len(found)
        self.tally.lost = lost(head, left_out, streamed, {read.seq for read in found})

    async def _fill(self) -> None:
        maker = Maker()
        _, writer = await asyncio.open_connection("127.0.0.1", self.bridge.feed_port)
        for _ in range(0, _FILL, 1_000):
            writer.write(b"".join(maker.commit() for _ in range(1_000)))
            await writer.drain()
        writer.close()
        await self.bridge.delivered(_FILL, _BACK_SECONDS)

    def _node(self) -> Any:
        entries = self._rate * 60 // _EVENTS_PER_ENTRY
        arguments = {
            "to": f"127.0.0.1:{self.bridge.feed_port}",
            "blocks": self._minutes,
            "block-seconds": 60,
            "entries": entries,
            "api-port": self._api,
        }
        options = [f"--{name}={value}" for name, value in arguments.items()]
        command = [sys.executable, "-m", "bridge", "emit", *options]
        return spawn(command, self._emitted, self.bridge.environ)

    def _sent(self) -> int:
        text = self._emitted.read_text(encoding="utf-8")
        told = re.findall(r"([\d,]+) events, 0 waiting, 0 not sent, 0 dropped", text)
        if not told:
            self.tally.broken.append(f"the node could not send all: {text}")
            return 0
        return int(told[-1].replace(",", ""))

    async def _until_first_ends(self, *works: Coroutine[Any, Any, None]) -> None:
        tasks = [asyncio.create_task(work) for work in works]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
        for task in done:
            task.result()

    # The brokers

    async def _flap(self) -> None:
        kafka, nats = self._sinks.kafka, self._sinks.nats
        turns = ((nats, _killed), (kafka, _paused), (nats, _paused), (kafka, _killed))
        for minute in range(self._minutes):
            await self._at(minute * 60 + 5)
            self._quiet = False
            broker, hurt = turns[minute % len(turns)]
            back = hurt(broker)
            await asyncio.sleep(_AWAY_SECONDS)
            await asyncio.to_thread(back)
            began = time.monotonic()
            await self._all_is_well()
            self.tally.recovered(time.monotonic() - began)
            self.tally.tries += 1
            self._quiet = True
        await self._at(self._minutes * 60)

    async def _at(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, self._began + seconds - time.monotonic()))

    async def _all_is_well(self) -> None:
        deadline = time.monotonic() + _BACK_SECONDS
        while True:
            ready = await asyncio.to_thread(self.bridge.ready)
            if ready["ready"] and (await self._metrics()).longest_lag < _QUIET_LAG:
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"not well after {_BACK_SECONDS} s: {ready}")
            await asyncio.sleep(1)

    # The samples

    async def _sample(self) -> None:
        for number in range(sys.maxsize):
            await self._at(number * _EVERY_SECONDS)
            sample = await self._look()
            self.samples.append(sample)
            print(_line(sample), file=sys.stderr, flush=True)

    async def _look(self) -> Sample:
        quiet, looks = self._quiet, []
        for _ in range(_LOOKS if quiet else 1):
            metrics = await self._metrics()
            # What comes with a look itself, a connection and its task, is in each of them.
            counted = int(metrics.total("bridge_tasks"))
            looks.append((self._process.num_fds(), self._process.num_threads(), counted))
            await asyncio.sleep(0.1)
        fds, threads, tasks = (min(counts) for counts in zip(*looks, strict=True))
        memory = self._process.memory_full_info()
        files = chain.from_iterable(map(self.bridge.folder.glob, ("journal.db*", "s*-0*")))
        return Sample(
            round(time.monotonic() - self._began, 1),
            memory.rss / 1e6,
            memory.pss / 1e6,
            fds,
            threads,
            tasks,
            sum(file.stat().st_size for file in files) / 1e6,
            metrics.accepted,
            metrics.longest_lag,
            quiet and self._quiet,
        )

    async def _metrics(self) -> Any:
        return await asyncio.to_thread(self.bridge.metrics)


def _killed(broker: Broker) -> Callable[[], None]:
    broker.kill()
    return broker.start


def _paused(broker: Broker) -> Callable[[], None]:
    broker.pause()
    return broker.resume


def lost(head: int, left_out: Mapping[str, float], streamed: set[int], written: set[int]) -> int:
    """Return how many of the records up to `head` lack a message in a sink.

    A sink that was found to be further than the checkpoint has not counted what is left out there:
    the other one has.
    """
    nowhere = head - int(max(left_out.values(), default=0)) - len(streamed | written)
    return nowhere + len(streamed ^ written)


def _wrong(held: list[Read]) -> int:
    """Return how many have other data than their id says, as far as that can be told."""
    # The data of a claim check lie elsewhere; the id of a node message is not of its data alone.
    telling = [e for e in held if "dataref" not in e.attributes and e.kind != "node-message"]
    return wrong(telling)


def _steps_back(numbers: list[int]) -> int:
    return sum(after <= before for before, after in pairwise(numbers))


def slope(samples: list[Sample]) -> float:
    """Return how fast the memory grows, by least squares, in MB an hour.

    Of each minute the least counts: what is sent anew when a broker is back comes and goes.
    """
    least: dict[int, float] = {}
    for each in samples:
        minute = int(each.at // 60)
        least[minute] = min(each.rss_mb, least.get(minute, each.rss_mb))
    mean, level = sum(least) / len(least), sum(least.values()) / len(least)
    above = sum((minute - mean) * (rss - level) for minute, rss in least.items())
    return 60 * above / sum((minute - mean) ** 2 for minute in least)


def verdict(samples: list[Sample], minutes: int) -> tuple[list[str], list[str]]:
    """Return what is bad about them, and what else is to be told."""
    if minutes < _LEAST_MINUTES:
        return [], [f"growth NOT JUDGED: that takes {_LEAST_MINUTES} minutes"]
    late = [each for each in samples if each.at >= _WARM_MINUTES * 60]
    growth = slope(late)
    notes = [f"memory grew by {growth:.2f} MB an hour after {_WARM_MINUTES} minutes"]
    bad = notes[:] if growth > _MOST_MB_PER_HOUR else []
    quiet = [each for each in late if each.quiet]
    # A bridge at work has some more now and then: what grows is the least.
    part = len(quiet) // 4
    for name in ("fds", "threads", "tasks"):
        counts = [getattr(each, name) for each in quiet]
        first, last = min(counts[:part]), min(counts[-part:])
        notes.append(f"{name} in quiet phases: {first} first, {last} last, {max(counts)} at most")
        if last > first:
            bad.append(f"{name} grew from {first} to {last}")
    return bad, notes


def _line(sample: Sample) -> str:
    words = (f"{value:.1f}" if isinstance(value, float) else value for value in sample)
    return "".join(f"{word!s:>12}" for word in words)


def main() -> None:
    """Run it as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--rate", type=int, default=200, help="events a second")
    parser.add_argument("--json", type=Path, default=Path("dist/soak.json"), help="of the samples")
    chosen = parser.parse_args()
    print("".join(f"{name:>12}" for name in Sample._fields), file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, Ground(Path(folder)) as ground:
        soak = Soak(ground, chosen.minutes, chosen.rate)
        try:
            asyncio.run(soak.run())
        finally:
            chosen.json.parent.mkdir(parents=True, exist_ok=True)
            chosen.json.write_text(json.dumps([each._asdict() for each in soak.samples]) + "\n")
    tally = soak.tally
    bad, notes = verdict(soak.samples, chosen.minutes)
    print(
        f"{tally.tries} times a broker was away; accepted {tally.accepted}, lost {tally.lost},"
        f" out of order {tally.reordered}, twice in JetStream {tally.duplicates}, twice in Kafka"
        f" {tally.repeats}, other bytes {tally.wrong}; worst recovery {tally.recovery:.1f} s",
        *notes,
        *(f"BROKEN: {sentence}" for sentence in (*tally.broken, *bad)),
        "BAD" if bad or not tally.is_clean else "KEPT",
        sep="\n",
    )
    sys.exit(bool(bad) or not tally.is_clean)


if __name__ == "__main__":
    main()
