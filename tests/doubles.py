"""Doubles of the ports: small, scripted, and strict about the promises of `bridge/ports.py`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NoReturn

from bridge.core.claim import size
from bridge.errors import BridgeError, MessageRefused, SinkUnavailable
from bridge.model import Group, Kind, Message, Run, Standing, Tail

__all__ = ["MemoryJournal", "ScriptedSink"]


class MemoryJournal:
    """A journal in memory. Each write takes the next error of `refusals`, if there is one."""

    def __init__(self) -> None:
        self.groups: list[Group] = []
        self.positions: dict[str, int] = {}
        self.states: dict[str, bytes] = {}
        self.kept: dict[str, dict[str, bytes]] = {}
        """The items of each reader."""
        self.refusals: deque[BridgeError] = deque()
        self.has_reserve = False
        """Whether what is urgent is taken all the same."""
        self.attempts: list[tuple[Run, ...]] = []
        self.open = asyncio.Event()
        """Cleared, a write does not end."""
        self.open.set()
        self.trims = False
        """Whether it has let go of all that it had."""
        self._grown = asyncio.Event()

    @property
    def head(self) -> int:
        return self.groups[-1].last if self.groups else 0

    @property
    def runs(self) -> list[Run]:
        return [run for group in self.groups for run in group.runs]

    def put(self, group: Group) -> None:
        self.groups.append(group)
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()

    def position(self, reader: str) -> int:
        return self.positions.get(reader, 0)

    def state(self, reader: str) -> bytes | None:
        return self.states.get(reader)

    def checkpoint(self, reader: str, seq: int, state: bytes | None = None) -> None:
        assert 0 <= seq <= self.head
        self.positions[reader] = seq

    async def wait(self, after: int) -> None:
        while self.head <= after:
            await self._grown.wait()

    async def read(self, after: int, max_bytes: int) -> list[Group]:
        found: list[Group] = []
        size = 0
        for group in self.groups:
            if group.last <= after or self.trims:
                continue
            size += sum(len(run.frames) for run in group.runs)
            if found and size > max_bytes:
                break
            found.append(group)
        return found

    async def append(self, runs: Sequence[Run], *, urgent: bool = False) -> int:
        self.attempts.append(tuple(runs))
        # As the real one: whoever waits may be cancelled, the commit may not.
        refuses = not (urgent and self.has_reserve)
        return await asyncio.shield(asyncio.ensure_future(self._write(runs, refuses=refuses)))

    async def advance(
        self, reader: str, seq: int, runs: Sequence[Run], items: Mapping[str, bytes | None]
    ) -> None:
        self.attempts.append(tuple(runs))
        await self._write(runs)
        self.checkpoint(reader, seq)
        kept = self.kept.setdefault(reader, {})
        for name, value in items.items():
            if value is None:
                kept.pop(name, None)
            else:
                kept[name] = value

    def items(self, reader: str) -> list[tuple[str, bytes]]:
        return sorted(self.kept.get(reader, {}).items())

    def item(self, reader: str, name: str) -> bytes | None:
        return self.kept.get(reader, {}).get(name)

    async def _write(self, runs: Sequence[Run], *, refuses: bool = True) -> int:
        await self.open.wait()
        if self.refusals and refuses:
            raise self.refusals.popleft()
        if runs:
            count = sum(run.records for run in runs)
            self.put(Group(self.head + 1, self.head + count, tuple(runs)))
        return self.head


class ScriptedSink:
    """A broker. Each opening and each sending takes the next error of its script, if any."""

    def __init__(self, name: str = "scripted", broker_bytes: int = 1_000_000) -> None:
        self._name = name
        self._limit = 0
        self.broker_bytes = broker_bytes
        """What the broker takes just now; the sink learns of it when it is opened."""
        self.openings: deque[BridgeError | None] = deque()
        self.sendings: deque[BridgeError | None] = deque()
        self.refused_ids: set[str] = set()
        self.answers = asyncio.Event()
        """Cleared, a sending is not acknowledged."""
        self.answers.set()
        self.opened = 0
        self.is_open = False
        self.prepared: list[int] = []
        """Number of the first message of each list that it was told of ahead."""
        self.sent = 0
        """Messages handed to it, acknowledged or not."""
        self.acknowledged: list[Message] = []
        self.aside: dict[str, bytes] = {}
        self.last: Tail | None = None
        """What the broker says that it holds."""
        self.gone = asyncio.Event()
        """Set, the connection is lost though nothing is sent."""
        self.lost = False
        """Whether it says that it lost something."""

    @property
    def name(self) -> str:
        return self._name

    def limit(self, kind: Kind) -> int:
        return self._limit

    async def open(self) -> None:
        assert not self.is_open, "opened twice"
        error = self.openings.popleft() if self.openings else None
        if error is not None:
            raise error
        self.opened += 1
        self.is_open = True
        self._limit = self.broker_bytes

    mark = None

    async def watch(self) -> NoReturn:
        await self.gone.wait()
        raise SinkUnavailable("scripted loss")

    async def standing(
        self, mark: bytes | None, ours: Callable[[Tail], Awaitable[bool]]
    ) -> Standing:
        tail = self.last if self.last is not None and await ours(self.last) else None
        return Standing(tail, self.lost)

    async def prepare(self, messages: Sequence[Message]) -> None:
        assert self.is_open, "prepared for a closed sink"
        assert all(size(message) <= self._limit for message in messages)
        self.prepared += [message.seq for message in messages[:1]]

    async def publish(self, messages: Sequence[Message]) -> int:
        assert self.is_open, "sent to a closed sink"
        self.sent += len(messages)
        await self.answers.wait()
        error = self.sendings.popleft() if self.sendings else None
        if error is not None:
            raise error
        for place, message in enumerate(messages):
            if message.id in self.refused_ids or size(message) > self.broker_bytes:
                raise MessageRefused(place, f"scripted refusal of {message.id}")
            self.acknowledged.append(message)
        return 0

    def answer_once(self) -> None:
        """Acknowledge what waits for it now, and nothing that comes later."""
        self.answers.set()
        self.answers.clear()

    async def set_aside(self, message: Message) -> str:
        assert self.is_open, "stored in a closed sink"
        self.aside[message.id] = message.data
        return f"double:{message.id}"

    async def close(self) -> None:
        self.is_open = False
