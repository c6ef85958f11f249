"""A TCP proxy between the bridge and a broker, whose mood can be changed at any moment.

TCP takes no bytes out of the middle of a stream, so a connection that a mood has spoilt stays
spoilt, and is reset when the mood ends.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from enum import Enum
from typing import Self

from tests.brokers.process import HOST, free_port

__all__ = ["Mood", "Proxy"]

_CHUNK = 65_536


class Mood(Enum):
    """What the proxy does to all its connections."""

    FAIR = "passes everything on"
    SLOW = "holds each piece for up to 0.3 s"
    DEAF = "takes requests and passes none on"
    MUTE = "passes requests on and swallows the answers"
    HALF = "passes half of an answer on, then resets"
    CURT = "passes a request on and resets before the answer"
    GONE = "resets everything, and takes nobody in"


class Proxy:
    """Listens on `port` of loopback, and leads to `target` there. A context that serves."""

    def __init__(self, target: int, seed: int, port: int | None = None) -> None:
        self.port = port or free_port()
        self._target = target
        self._random = random.Random(seed)
        self._mood = Mood.FAIR
        self._open: set[_Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def feel(self, mood: Mood) -> None:
        """Change the mood; what the last one spoilt is reset."""
        self._mood = mood
        for pair in list(self._open):
            if pair.is_spoilt or mood is Mood.GONE:
                pair.reset()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, HOST, self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for pair in list(self._open):
            pair.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self._mood is not Mood.GONE:
                await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            return
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_reader, other_writer = await asyncio.open_connection(HOST, self._target)
        pair = _Pair(writer, other_writer)
        self._open.add(pair)
        pumps = [
            asyncio.create_task(self._pump(pair, reader, other_writer, answers=False)),
            asyncio.create_task(self._pump(pair, other_reader, writer, answers=True)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._open.discard(pair)
            pair.reset()
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self,
        pair: _Pair,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        answers: bool,
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                mood = self._mood
                if mood is Mood.SLOW:
                    await asyncio.sleep(self._random.uniform(0, 0.3))
                elif mood in {Mood.MUTE, Mood.DEAF}:
                    pair.is_spoilt = True
                if pair.is_spoilt and (answers or pair.is_deaf):
                    continue
                if mood is Mood.DEAF:
                    pair.is_deaf = True
                    continue
                if mood is Mood.HALF and answers:
                    data = data[: len(data) // 2]
                if mood is Mood.CURT and answers:
                    return
                writer.write(data)
                await writer.drain()
                if mood is Mood.HALF and answers:
                    # What is written is sent before the connection is let go.
                    await asyncio.sleep(0.01)
                    return


class _Pair:
    """The two connections that the proxy joins."""

    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        self._writers = writers
        self.is_spoilt = False
        self.is_deaf = False

    def reset(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
