"""Bounds of the status server: how many connections, and how long each may take.

The library parses and answers; here each connection is only counted, and timed from outside: what
is still to come whole, or still to be taken by the peer, may be late.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NoReturn, cast

from bridge import log
from bridge.metrics import Metrics
from bridge.settings import StatusSettings

__all__ = ["Connections"]

_CHECK_SECONDS = 0.5
_LOG_SECONDS = 10
_log = log.get("status")


class Connections:
    """All connections of the status server."""

    def __init__(self, settings: StatusSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._throttle = log.Throttle(_LOG_SECONDS)
        self.open: dict[asyncio.BaseTransport, _Connection] = {}

    @property
    def full(self) -> bool:
        """Whether one more is refused."""
        return len(self.open) >= self._settings.max_connections

    def factory(self, serve: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        """Return what makes the protocol of a connection; `serve` makes the one behind it."""
        return lambda: _Connection(self, serve())

    def answering(self, transport: asyncio.BaseTransport | None) -> None:
        """A request on this connection came whole, and is being answered."""
        if transport in self.open:
            self.open[transport].waits_since = None

    def answered(self, transport: asyncio.BaseTransport | None) -> None:
        """The answer is made: the peer must take it, and may ask again."""
        if transport in self.open:
            self.open[transport].wait_anew()

    def refused(self, reason: str) -> None:
        """Count a refusal; log it unless one was just logged."""
        self._metrics.refused(reason)
        held_back = self._throttle.passes(reason)
        if held_back is not None:
            _log.warning("refused", reason=reason, more_not_logged=held_back)

    async def watch(self) -> NoReturn:
        """Close connections that are late, until cancelled."""
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            late = time.monotonic() - self._settings.request_seconds
            for connection in list(self.open.values()):
                connection.check(late)


class _Connection(asyncio.Protocol):
    def __init__(self, connections: Connections, inner: asyncio.Protocol) -> None:
        self._connections = connections
        self._inner = inner
        self._heard = False
        self._entered = False
        self.waits_since: float | None = time.monotonic()
        """Since when a request is awaited; None while one is answered."""
        self._choked_since: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self._connections.full:
            self._connections.refused("status-too-many-connections")
            self._transport.abort()
            return
        self._entered = True
        self._connections.open[transport] = self
        self._inner.connection_made(transport)

    def wait_anew(self) -> None:
        """Begin to wait for the next request."""
        self._heard = False
        self.waits_since = time.monotonic()

    def data_received(self, data: bytes) -> None:
        if self._entered:
            self._heard = True
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._entered else None

    def pause_writing(self) -> None:
        self._choked_since = time.monotonic()
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._choked_since = None
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._entered:
            del self._connections.open[self._transport]
            self._inner.connection_lost(exc)

    def check(self, late: float) -> None:
        """Close the connection if it waits, or is not read from, since before `late`."""
        since = [at for at in (self.waits_since, self._choked_since) if at is not None]
        if since and min(since) < late:
            # One that is merely idle is closed without a word.
            if self._heard or self._choked_since is not None:
                self._connections.refused("status-late")
            self._transport.abort()
