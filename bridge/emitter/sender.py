"""Sends events to a receiver as a node's sender does, its ways of losing them included.

    offer ──> queue of 5,000, the newest dropped ──> run: one event at a time
                                                      |  3 tries, 10 s apart, reconnecting
                                                      |  then 5 minutes of darkness: all discarded

Facts from factomd v6.5.2 to v6.17.1, `events/eventservices/eventSender.go`, and from recordings.
Nothing is acknowledged and a write has no deadline: a receiver that does not read fills the queue,
and what is in the kernel's buffers when a receiver dies is lost and counted nowhere.

An event is written in two or three writes, over UDP as many datagrams: the version byte alone, so
that a broken connection shows before the event is spent on it; length and payload up to 4,096
bytes; all the rest. With `coalesce` the sender writes what has gathered at once instead, to load a
receiver: many events share one fate then, and that is not as nodes do. It concerns TCP only.
"""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import NoReturn

from bridge.core.framing import VERSION, frame
from bridge.emitter import gojson
from bridge.emitter.config import LiveFeedConfig
from bridge.emitter.counters import Counters
from bridge.emitter.line import Line, dial as dial_socket
from bridge.log import get
from bridge.pb.eventmessages.factomEvents_pb2 import FactomEvent

__all__ = ["QUEUE_EVENTS", "Sender", "Timing", "writes"]

QUEUE_EVENTS = 5_000
_WRITE_BUFFER = 4_096
_COALESCED_BYTES = 256 * 1024
_VERSION_BYTE = bytes([VERSION])
_LENGTH = struct.Struct("<i")

_log = get("emitter")

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]
Dial = Callable[[LiveFeedConfig], Awaitable[Line]]


@dataclass(frozen=True, slots=True)
class Timing:
    """The sender's patience; the defaults are the node's."""

    tries: int = 3
    retry_seconds: float = 10
    dark_seconds: float = 300


def writes(payload: bytes) -> Iterator[bytes]:
    """Yield the writes, or datagrams, that carry `payload`."""
    yield _VERSION_BYTE
    first = _WRITE_BUFFER - _LENGTH.size
    yield _LENGTH.pack(len(payload)) + payload[:first]
    if len(payload) > first:
        yield payload[first:]


class Sender:
    """Sends to one receiver for as long as `run` is running.

    Events are messages, or payloads built before in the format of `config`. `offer` may be called
    from any thread, before, while and after `run` runs; all else belongs to the loop of `run`.
    """

    def __init__(
        self,
        config: LiveFeedConfig,
        *,
        timing: Timing | None = None,
        queue_events: int = QUEUE_EVENTS,
        coalesce: bool = False,
        counters: Counters | None = None,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
        dial: Dial = dial_socket,
    ) -> None:
        self._config = config
        self._timing = timing or Timing()
        self._size = queue_events
        self._coalesces = coalesce and config.protocol == "tcp"
        self.counters = counters or Counters()
        self._clock, self._sleep, self._dial = clock, sleep, dial
        self._encode: Callable[[FactomEvent], bytes] = (
            gojson.dumps if config.format == "json" else FactomEvent.SerializeToString
        )
        self._queue: deque[FactomEvent | bytes] = deque()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        """That of `run`, while it is running."""
        self._thread = 0
        self._is_calling = False
        """Whether another thread has asked the loop to wake the sender, which it has not yet."""
        self._grown = asyncio.Event()
        self._room = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._line: Line | None = None
        self._dark_until: float | None = None

    @property
    def config(self) -> LiveFeedConfig:
        """The settings in force."""
        return self._config

    @property
    def waiting(self) -> int:
        """Events in the queue."""
        return len(self._queue)

    @property
    def is_idle(self) -> bool:
        """Whether no event is in the queue, or taken from it and neither sent nor given up."""
        return not self._queue and self._idle.is_set()

    def offer(self, event: FactomEvent | bytes, /) -> bool:
        """Queue `event`, or drop it because the queue is full, count that and return False."""
        with self._lock:
            if len(self._queue) >= self._size:
                self.counters.dropped += 1
                return False
            self._queue.append(event)
            if self._loop is not None and threading.get_ident() != self._thread:
                # One call wakes the sender for all that was queued before it is made.
                if not self._is_calling:
                    self._is_calling = True
                    self._loop.call_soon_threadsafe(self._called)
                return True
        self._wake()
        return True

    async def feed(self, events: Iterable[FactomEvent | bytes]) -> None:
        """Queue all of `events`, waiting for room: the one way in that drops nothing."""
        remaining = iter(events)
        while True:
            # Looked at once: other threads may fill it meanwhile.
            room = self._size - len(self._queue)
            if room <= 0:
                self._room.clear()
                await self._room.wait()
                continue
            taken = list(islice(remaining, room))
            if not taken:
                return
            self._queue.extend(taken)
            self._wake()

    async def drain(self) -> None:
        """Return once every event queued was sent, or given up."""
        if self._queue:
            # What another thread has queued, the sender may not yet know of.
            self._idle.clear()
        await self._idle.wait()

    async def run(self) -> NoReturn:
        """Send until cancelled: then the queue is lost, and an event half written is cut short."""
        with self._lock:
            self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
            self._is_calling = False
        try:
            with suppress(OSError):
                await self._connect()
            while True:
                while not self._queue:
                    self._idle.set()
                    self._grown.clear()
                    await self._grown.wait()
                await self._send_next()
        finally:
            # From here on nobody calls a loop that may be closed.
            with self._lock:
                self._loop = None
            self._hang_up()

    def _called(self) -> None:
        with self._lock:
            self._is_calling = False
        self._wake()

    def _wake(self) -> None:
        self._idle.clear()
        self._grown.set()

    async def _send_next(self) -> None:
        if self._dark_until is not None and self._clock() <= self._dark_until:
            self._queue.popleft()
            self.counters.not_sent += 1
            self._make_room()
            return
        payloads = self._take()
        self._make_room()
        if not await self._deliver(payloads):
            self.counters.not_sent += len(payloads)
            self._dark_until = self._clock() + self._timing.dark_seconds
            _log.warning("dark", seconds=self._timing.dark_seconds, not_sent=self.counters.not_sent)

    def _take(self) -> list[bytes]:
        payloads: list[bytes] = []
        size = 0
        while self._queue:
            event = self._queue.popleft()
            payload = event if isinstance(event, bytes) else self._encode(event)
            payloads.append(payload)
            size += len(payload)
            if not self._coalesces or size >= _COALESCED_BYTES:
                break
        return payloads

    def _make_room(self) -> None:
        # Not for each event: whoever feeds shall have a good deal to do when it wakes.
        if len(self._queue) <= self._size // 2:
            self._room.set()

    async def _deliver(self, payloads: list[bytes]) -> bool:
        if self._coalesces:
            pieces = [b"".join(map(frame, payloads))]
        else:
            pieces = [piece for payload in payloads for piece in writes(payload)]
        tried = 0
        while self._config.persistent_reconnect or tried < self._timing.tries:
            tried += 1
            try:
                line = self._line or await self._connect()
                for piece in pieces:
                    await line.write(piece)
            except OSError as error:
                self._hang_up()
                _log.warning("not_sent", to=self._address, tried=tried, why=str(error))
                await self._sleep(self._timing.retry_seconds)
            else:
                return True
        return False

    @property
    def _address(self) -> str:
        return f"{self._config.protocol}/{self._config.host}:{self._config.port}"

    async def _connect(self) -> Line:
        self._line = await self._dial(self._config)
        self._dark_until = None
        return self._line

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None
