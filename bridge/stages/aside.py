"""Decodes large records in a process of its own, so that the feed's loop never waits for one.

A payload of 32 MiB may be made so that decoding it takes seconds, and threads do not help: the
parsers hold the interpreter. The child is started at the first large record. What it may take for
one is bounded, in memory and in its own processor time, which other load does not change. Where it
dies of a record twice, a dead letter takes the record's place; the bridge itself is not touched.

On the pipes, both ways: length, 8 bytes little-endian, and a pickle. The child is our own code, and
its answers are trusted as our own.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import pickle
import resource
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

from bridge import log
from bridge.core.peek import Peeked, peek
from bridge.core.render import Rendered, Renderer
from bridge.errors import DecodeError
from bridge.model import Group, Layout

__all__ = ["Aside"]

_MEMORY_BYTES = 400 * 1024 * 1024
"""Address space of the child: no true event of 32 MiB needs it."""

_CPU_SECONDS = 30
_NICE = 5
_ATTEMPTS = 2
"""A child may also be killed for no fault of the record."""

_START_SECONDS = 1
_SLICE = 1024 * 1024
_LENGTH_BYTES = 8

_log = log.get("aside")


class Aside:
    """Has large records decoded elsewhere, one at a time. Ended by `aclose`."""

    def __init__(self, make: Callable[[], Renderer]) -> None:
        """`make` makes the child's renderer; it can be pickled."""
        self._make = make
        self.renderer = make()
        self._process: Process | None = None
        self._lock = asyncio.Lock()
        self._layouts: dict[tuple[Any, ...], Layout] = {}

    async def render(self, group: Group) -> Rendered:
        """Return `group`, which is one record, as `Renderer.render` does."""
        try:
            rendered: Rendered = await self._answer(("render", group))
        except DecodeError as error:
            return self.renderer.instead(group, error.reason, str(error))
        messages = [each._replace(layout=self._layout(each.layout)) for each in rendered.messages]
        return rendered._replace(messages=messages)

    async def peek(self, payload: bytes) -> Peeked | None:
        """Return what `payload` holds for the tracker, as `core.peek` does."""
        try:
            found: Peeked | None = await self._answer(("peek", payload))
        except DecodeError:
            return None
        return found

    async def aclose(self) -> None:
        """End the child."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _layout(self, layout: Layout) -> Layout:
        """Return the one layout like this: sinks know it by identity."""
        return self._layouts.setdefault((layout.kind, layout.constants, layout.names), layout)

    async def _answer(self, request: tuple[str, Any]) -> Any:
        async with self._lock:
            sent = pickle.dumps(request, pickle.HIGHEST_PROTOCOL)
            for _ in range(_ATTEMPTS):
                process = self._process or await self._started()
                try:
                    await _send(process, sent)
                    return pickle.loads(await _receive(process))  # noqa: S301  (our own child)
                except (ConnectionError, asyncio.IncompleteReadError):
                    await self.aclose()
                    code = process.returncode
                    _log.warning("died of a large record", bytes=len(sent), code=code)
                except BaseException:
                    # Asked and not answered: the next answer would be this one.
                    await self.aclose()
                    raise
        raise DecodeError(
            "too-costly",
            f"decoding it takes more than {_CPU_SECONDS} s of a processor,"
            f" or than {_MEMORY_BYTES >> 20} MiB of memory",
        )

    async def _started(self) -> Process:
        while True:
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "bridge.stages.aside",
                    stdin=PIPE,
                    stdout=PIPE,
                    stderr=DEVNULL,
                    limit=_SLICE,
                    # What ends the bridge's group of processes leaves it to the bridge to end this.
                    start_new_session=True,
                )
            except OSError as error:
                _log.error("no process to decode in", error=str(error))
                await asyncio.sleep(_START_SECONDS)
            else:
                self._process = process
                with suppress(ConnectionError):
                    await _send(process, pickle.dumps(self._make))
                return process


async def _send(process: Process, sent: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(len(sent).to_bytes(_LENGTH_BYTES, "little"))
    whole = memoryview(sent)
    for at in range(0, len(sent), _SLICE):
        process.stdin.write(whole[at : at + _SLICE])
        await process.stdin.drain()


async def _receive(process: Process) -> bytes:
    assert process.stdout is not None
    length = int.from_bytes(await process.stdout.readexactly(_LENGTH_BYTES), "little")
    return await process.stdout.readexactly(length)


def main() -> None:
    """Answer what the parent asks, until it is gone."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Where processors are short, receiving comes first.
    os.nice(_NICE)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Trees of JSON have no cycles, and looking for some takes half of the time.
    gc.disable()
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    renderer = _read(asked)()
    while True:
        work, what = _read(asked)
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(used.ru_utime + used.ru_stime) + 1 + _CPU_SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
        answer: Any = renderer.render(what) if work == "render" else peek(what)
        sent = pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)
        del what, answer
        answers.write(len(sent).to_bytes(_LENGTH_BYTES, "little"))
        answers.write(sent)
        answers.flush()
        del sent


def _read(stream: IO[bytes]) -> Any:
    length = stream.read(_LENGTH_BYTES)
    if len(length) < _LENGTH_BYTES:
        sys.exit()
    return pickle.loads(stream.read(int.from_bytes(length, "little")))  # noqa: S301  (our parent)


if __name__ == "__main__":
    main()
