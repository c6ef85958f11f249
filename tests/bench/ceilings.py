"""The most that each stage alone can do: the bridge's own parts, fed from memory, one at a time."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Literal

import uvloop

from bridge.core.framing import FrameDecoder
from bridge.core.render import Renderer
from bridge.core.routing import ChainFilter, Routes
from bridge.journal import open_journal
from bridge.metrics import Metrics
from bridge.model import Group, Message, Run
from bridge.ports import Sink
from bridge.settings import JournalSettings, KafkaSettings, NatsSettings, TopicSettings
from bridge.sinks.kafka import KafkaSink
from bridge.sinks.nats import NatsSink
from tests.bench.ground import Ground

__all__ = ["measure"]

_CHUNK_BYTES = 256 * 1024
"""What one read of the socket brings."""
_GROUP_BYTES = 1024 * 1024
"""What a lane sends at a time."""
_COMMIT_BYTES = 4 * 1024 * 1024
_MAX_PAYLOAD = 32 * 1024 * 1024
_EPOCH = "bench"

Format = Literal["protobuf", "json"]
Stage = Callable[[], Awaitable[tuple[int, float]]]
"""Returns how many events it did, in how many seconds."""


def measure(ground: Ground) -> dict[str, dict[str, float]]:
    """Return events/s, by size, stage and format."""
    found = {}
    for method in ("commit", "mix", "reveal"):
        stages = _Stages(ground, ground.feed(method).frames)
        for name, stage in stages.of(method):
            case = f"{method} {name}"

            def run(stage: Stage = stage) -> dict[str, float]:
                with ground.in_the_place_of_the_bridge():
                    count, seconds = uvloop.run(stage())
                return {"rate": count / seconds}

            found[case] = ground.repeat(f"ceiling {case}", run)
        ground.forget(method)
    return found


class _Stages:
    def __init__(self, ground: Ground, frames: list[bytes]) -> None:
        self._ground, self._frames = ground, frames

    def of(self, method: str) -> Iterator[tuple[str, Stage]]:
        yield "framing", self._framing
        yield "journal", self._journal
        if method == "reveal":
            return
        formats: tuple[Format, ...] = ("protobuf",) if method == "commit" else ("protobuf", "json")
        for format_ in formats:
            yield f"rendering {format_}", partial(self._rendering, format_)
            yield f"kafka {format_}", partial(self._kafka, format_)
            for server in ("nats", "nats always"):
                yield (
                    f"{server} {format_}",
                    partial(self._nats, server, format_),
                )

    async def _framing(self) -> tuple[int, float]:
        data = b"".join(self._frames)
        chunks = [data[at : at + _CHUNK_BYTES] for at in range(0, len(data), _CHUNK_BYTES)]
        decoder, count = FrameDecoder(max_payload=_MAX_PAYLOAD), 0
        began = time.perf_counter()
        for chunk in chunks:
            decoder.receive(chunk)
            count += decoder.take()[0]
        return count, time.perf_counter() - began

    async def _journal(self) -> tuple[int, float]:
        runs = [group.runs[0] for group in self._groups(_COMMIT_BYTES)]
        with self._ground.journal() as folder:
            async with open_journal(JournalSettings(dir=folder), Metrics()) as journal:
                began = time.perf_counter()
                for run in runs:
                    await journal.append([run])
                return len(self._frames), time.perf_counter() - began

    async def _rendering(self, format_: Format) -> tuple[int, float]:
        groups = list(self._groups(_GROUP_BYTES))
        render = self._renderer(_routes("bench"), format_).render
        began = time.perf_counter()
        count = sum([len(render(group).messages) for group in groups])
        return count, time.perf_counter() - began

    async def _kafka(self, format_: Format) -> tuple[int, float]:
        routes = _routes(f"ceiling{time.time_ns()}")
        settings = KafkaSettings(bootstrap_servers=(self._ground.kafka.bootstrap,))
        return await self._sent(KafkaSink(settings, routes, _EPOCH), routes, format_)

    async def _nats(self, server: str, format_: Format) -> tuple[int, float]:
        stream = f"ceiling{time.time_ns()}"
        settings = NatsSettings(servers=(self._ground.nats[server].url,), stream=stream)
        routes = _routes(stream)
        return await self._sent(NatsSink(settings, routes, _EPOCH), routes, format_)

    async def _sent(self, sink: Sink, routes: Routes, format_: Format) -> tuple[int, float]:
        """Send what is rendered already."""
        render = self._renderer(routes, format_).render
        steps: list[list[Message]] = [
            list(render(group).messages) for group in self._groups(_GROUP_BYTES)
        ]
        await sink.open()
        try:
            # A new topic's leader is not there at once.
            await sink.publish(steps[0])
            began = time.perf_counter()
            for messages in steps[1:]:
                await sink.publish(messages)
            return sum(map(len, steps[1:])), time.perf_counter() - began
        finally:
            await sink.close()

    def _groups(self, most: int) -> Iterator[Group]:
        first, gathered, size = 1, list[bytes](), 0
        for frame in (*self._frames, b""):
            if gathered and (size + len(frame) > most or not frame):
                run = Run("tcp/1", time.time_ns(), len(gathered), b"".join(gathered))
                yield Group(first, first + len(gathered) - 1, (run,))
                first, gathered, size = first + len(gathered), [], 0
            gathered.append(frame)
            size += len(frame)

    def _renderer(self, routes: Routes, format_: Format) -> Renderer:
        options: dict[str, Any] = {"network": "main", "epoch": _EPOCH, "format": format_}
        return Renderer(routes=routes, chains=ChainFilter(), **options)


def _routes(prefix: str) -> Routes:
    return Routes(prefix, TopicSettings().names, ())
