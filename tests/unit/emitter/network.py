"""A network and a clock that a test moves: receivers that come and go at set times."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from bridge.core import gojson
from bridge.emitter.config import LiveFeedConfig
from bridge.emitter.sender import Sender
from bridge.pb.eventmessages.factomEvents_pb2 import FactomEvent

__all__ = ["Connection", "Outbox", "Weather", "event_of", "frames", "running", "settled"]

LARGEST_DATAGRAM = 65_507


class Connection:
    """One connection to a scripted receiver, and what reached it."""

    def __init__(self, weather: Weather, until: float) -> None:
        self._weather = weather
        self._until = until
        self._warned = False
        self.opened = weather.now
        self.writes: list[bytes] = []

    @property
    def stream(self) -> bytes:
        return b"".join(self.writes)

    async def write(self, data: bytes, /) -> None:
        if self._weather.udp and len(data) > LARGEST_DATAGRAM:
            raise OSError(errno.EMSGSIZE, "Message too long")
        if self._weather.now >= self._until:
            # The kernel takes the first write after the receiver's end, and refuses the next.
            if self._warned:
                raise BrokenPipeError
            self._warned = True
            return
        room = self._weather.room - len(self.stream) if self._weather.room else len(data)
        self.writes.append(data[: max(room, 0)])
        if room < len(data):
            # The kernel's buffer is full, and nobody reads.
            await asyncio.get_running_loop().create_future()

    def close(self) -> None:
        self._until = min(self._until, self._weather.now)


class Weather:
    """Time, and a receiver that listens during `open` spans; both are the sender's seams."""

    def __init__(self, *open_spans: tuple[float, float], now: float = 0, udp: bool = False) -> None:
        self._spans = open_spans
        self.now = now
        self.udp = udp
        self.connections: list[Connection] = []
        self.refusals: list[float] = []
        self.room = 0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def stall_after(self, size: int) -> None:
        """Let receivers read `size` bytes and no more."""
        self.room = size

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        until: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.now + seconds, until))
        await until

    async def dial(self, config: LiveFeedConfig) -> Connection:
        for start, end in self._spans:
            if start <= self.now < end:
                self.connections.append(Connection(self, end))
                return self.connections[-1]
        self.refusals.append(self.now)
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    async def pass_to(self, moment: float) -> None:
        """Let time pass, waking whoever sleeps on the way at the time it asked for."""
        await settled()
        while self._sleepers and min(self._sleepers)[0] <= moment:
            at, sleeper = min(self._sleepers, key=lambda each: each[0])
            self._sleepers.remove((at, sleeper))
            self.now = at
            sleeper.set_result(None)
            await settled()
        self.now = max(self.now, moment)


async def settled() -> None:
    """Return when nothing but time is waited for."""
    for _ in range(6):
        await asyncio.sleep(0)


@asynccontextmanager
async def running(sender: Sender) -> AsyncIterator[None]:
    task = asyncio.create_task(sender.run())
    await settled()
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()


class Outbox:
    """A sender that keeps what it is given."""

    def __init__(self, config: LiveFeedConfig) -> None:
        self.config = config
        self.events: list[FactomEvent] = []

    def offer(self, event: FactomEvent, /) -> bool:
        self.events.append(event)
        return True


def event_of(payload: bytes) -> FactomEvent:
    """Return the event that a recorded payload holds, whatever its format."""
    return gojson.parse(payload) if payload[:1] == b"{" else FactomEvent.FromString(payload)


def frames(payloads: Sequence[bytes]) -> bytes:
    return b"".join(b"\x01" + len(each).to_bytes(4, "little") + each for each in payloads)
