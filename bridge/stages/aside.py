"""Decodes large records in a process of its own, so that the feed's loop never waits for one.

A payload of 32 MiB may be made so that decoding it takes seconds, and threads do not help: the
parsers hold the interpreter. The child is started at the first large record. What it may take for
one is bounded, in memory and in its own processor time, which other load does not change. Where it
dies of a record twice, a dead letter takes the record's place; the bridge itself is not touched.

On the pipes, both ways: length, 8 bytes little-endian, and a pickle; behind it, as it is, what the
pickle only tells the sizes of, for every copy of 32 MiB counts. The child is our own code, and its
answers are trusted as our own.
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
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, Any

from bridge import log
from bridge.core.peek import Peeked, peek
from bridge.core.render import Rendered, Renderer
from bridge.errors import DecodeError
from bridge.model import Group, Layout

__all__ = ["Aside"]

_MEMORY_BYTES = 340 * 1024 * 1024
"""Data of the child, as the kernel counts it: no true event of 32 MiB needs that much."""

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
        (run,) = group.runs
        bare = group._replace(runs=(run._replace(frames=b""),))
        try:
            rendered, *found = await self._answer(("render", bare), run.frames)
        except DecodeError as error:
            return self.renderer.instead(group, error.reason, str(error))
        messages = [
            each._replace(layout=self._layout(each.layout), data=data)
            for each, data in zip(rendered.messages, found, strict=True)
        ]
        whole: Rendered = rendered._replace(messages=messages)
        return whole

    async def peek(self, payload: bytes) -> Peeked | None:
        """Return what `payload` holds for the tracker, as `core.peek` does."""
        try:
            (found,) = await self._answer(("peek", None), payload)
        except DecodeError:
            return None
        peeked: Peeked | None = found
        return peeked

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

    async def _answer(self, request: tuple[str, Any], large: bytes) -> list[Any]:
        async with self._lock:
            for _ in range(_ATTEMPTS):
                process = self._process or await self._started()
                try:
                    await _send(process, _told(request, [large]))
                    await _send(process, large)
                    return await _received(process)
                except (ConnectionError, asyncio.IncompleteReadError):
                    await self.aclose()
                    code = process.returncode
                    _log.warning("died of a large record", bytes=len(large), code=code)
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
                    await _send(process, _told(self._make, []))
                return process


def _told(value: Any, behind: Sequence[bytes]) -> bytes:
    """Return what stands in front of `behind`."""
    sent = pickle.dumps((value, [len(each) for each in behind]), pickle.HIGHEST_PROTOCOL)
    return len(sent).to_bytes(_LENGTH_BYTES, "little") + sent


async def _send(process: Process, sent: bytes) -> None:
    assert process.stdin is not None
    whole = memoryview(sent)
    for at in range(0, len(sent), _SLICE):
        process.stdin.write(whole[at : at + _SLICE])
        await process.stdin.drain()


async def _received(process: Process) -> list[Any]:
    """Return what was said, and behind it what stood behind it."""
    assert process.stdout is not None
    read = process.stdout.readexactly
    length = int.from_bytes(await read(_LENGTH_BYTES), "little")
    value, sizes = pickle.loads(await read(length))  # noqa: S301  (our own child)
    return [value, *[await read(size) for size in sizes]]


def main() -> None:
    """Answer what the parent asks, until it is gone."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Where processors are short, receiving comes first.
    os.nice(_NICE)
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Trees of JSON have no cycles, and looking for some takes half of the time.
    gc.disable()
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    renderer = _read(asked)[0]()
    while True:
        (work, what), large = _read(asked)
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(used.ru_utime + used.ru_stime) + 1 + _CPU_SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
        answer, behind = _rendered(renderer, what, large) if work == "render" else (peek(large), [])
        answers.write(_told(answer, behind))
        for each in behind:
            answers.write(each)
        answers.flush()
        del large, answer, behind


def _rendered(renderer: Renderer, group: Group, frames: bytes) -> tuple[Rendered, list[bytes]]:
    """Return the messages without their data, and the data."""
    (run,) = group.runs
    rendered = renderer.render(group._replace(runs=(run._replace(frames=frames),)))
    bare = [message._replace(data=b"") for message in rendered.messages]
    return rendered._replace(messages=bare), [message.data for message in rendered.messages]


def _read(stream: IO[bytes]) -> list[Any]:
    length = stream.read(_LENGTH_BYTES)
    if len(length) < _LENGTH_BYTES:
        sys.exit()
    told = stream.read(int.from_bytes(length, "little"))
    value, sizes = pickle.loads(told)  # noqa: S301  (our parent)
    return [value, *[stream.read(size) for size in sizes]]


if __name__ == "__main__":
    main()
