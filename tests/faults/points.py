"""`factom-bridge run`, which kills itself at the n-th passing of a named point.

Run by the tests as `python -m tests.faults.points run`, with FAULT_POINT and FAULT_NTH in the
environment. Nothing of this is in the bridge: its journal, its file and its sinks are wrapped here.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from typing import Any

import apsw

import bridge.app
import bridge.journal
import bridge.journal.segments
from bridge.__main__ import main
from bridge.core.routing import Routes
from bridge.journal.sqlite import Journal
from bridge.model import Message, Run
from bridge.ports import Sink
from bridge.settings import Settings


class _Point:
    def __init__(self, name: str, nth: int) -> None:
        self._name = name
        self._left = nth

    def due(self, name: str) -> bool:
        """Whether this is the passing to die at."""
        if name != self._name:
            return False
        self._left -= 1
        return self._left == 0

    def __call__(self, name: str) -> None:
        if self.due(name):
            os.kill(os.getpid(), signal.SIGKILL)


class _File(apsw.VFSFile):
    def __init__(self, point: _Point, name: Any, flags: list[int]) -> None:
        super().__init__("unix", name, flags)
        self._point = point

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        if self._point.due("write, half of it"):
            super().xWrite(data[: len(data) // 2], offset)
            os.kill(os.getpid(), signal.SIGKILL)
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._point("fsync, before")
        super().xSync(flags)
        self._point("fsync, after")


class _Disk(apsw.VFS):
    def __init__(self, point: _Point) -> None:
        super().__init__("points", "unix", makedefault=True)
        self._point = point

    def xOpen(self, name: Any, flags: list[int]) -> _File:  # noqa: N802
        return _File(self._point, name, flags)


def _segments_with(point: _Point) -> None:
    """Watch the calls by which segments are written and synced."""
    write, sync = os.pwrite, os.fdatasync

    def written(file: int, content: Any, at: int) -> int:
        if point.due("segment, half of it"):
            write(file, content[: len(content) // 2], at)
            os.kill(os.getpid(), signal.SIGKILL)
        return write(file, content, at)

    def synced(file: int) -> None:
        point("segment synced, before")
        sync(file)
        point("segment synced, after")

    os.pwrite = written
    bridge.journal.segments._sync_data = synced


def _journal_with(point: _Point) -> type[Journal]:
    class Killed(Journal):
        async def append(self, runs: Sequence[Run], *, urgent: bool = False) -> int:
            point("append, before")
            head = await super().append(runs, urgent=urgent)
            point("append, after")
            return head

        def checkpoint(self, reader: str, seq: int, state: bytes | None = None) -> None:
            super().checkpoint(reader, seq, state)
            point("checkpoint noted")

        async def advance(self, reader: str, seq: int, *said: Any) -> None:
            point("tracked, before")
            await super().advance(reader, seq, *said)
            point("tracked, after")

        async def flush(self) -> None:
            point("checkpoint written, before")
            await super().flush()
            point("checkpoint written, after")

        def _trim(self, *, everything: bool = False) -> bool:
            point("trim, before")
            again = super()._trim(everything=everything)
            point("trim, after")
            return again

    return Killed


class _Sink:
    """Behind the port of a sink: the real one, watched."""

    def __init__(self, sink: Sink, point: _Point) -> None:
        self._sink = sink
        self._point = point

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink, name)

    async def publish(self, messages: Sequence[Message]) -> int:
        self._point("send, before")
        sending = asyncio.create_task(self._sink.publish(messages))
        try:
            await asyncio.sleep(0.001)
            self._point("send, on its way")
            duplicates = await sending
        finally:
            sending.cancel()
        self._point("acknowledged")
        return duplicates


def _run() -> None:
    point = _Point(os.environ.pop("FAULT_POINT"), int(os.environ.pop("FAULT_NTH")))
    disk = _Disk(point)
    build = bridge.app.build_sinks

    def watched(settings: Settings, routes: Routes, epoch: str) -> list[Any]:
        return [_Sink(sink, point) for sink in build(settings, routes, epoch)]

    bridge.app.build_sinks = watched
    _segments_with(point)
    bridge.journal.Journal = _journal_with(point)  # type: ignore[misc]
    main()
    del disk


if __name__ == "__main__":
    _run()
