"""Receives the feed over TCP, or over TLS on it.

Nothing is ever written to a peer but what TLS itself needs: the node does not read.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from operator import itemgetter
from typing import cast

from bridge import log
from bridge.core.framing import HEADER_BYTES, FrameDecoder
from bridge.core.groups import framing_run
from bridge.errors import FrameError, PortInUse
from bridge.metrics import Metrics
from bridge.model import Run
from bridge.ports import Feed
from bridge.receivers.gate import AllowList, ConnectionGate, Pace
from bridge.receivers.tls import Certificates, Channel, TlsRefused
from bridge.settings import FeedSettings

__all__ = ["TcpReceiver", "open_tcp"]

_log = log.get("tcp")
_READ_BYTES = 256 * 1024
_CHECK_SECONDS = 1
_REFUSAL_LOG_SECONDS = 10
_NODE_LINES = 20
"""Nodes told of in that time: more than there are, and few enough for the log."""
_SILENT_SECONDS = 5
"""How long a connection keeps its place, when others want it, without having sent an event."""
_UNREAD_BYTES = 65_536
"""What TLS may have to say to a peer that does not read."""


class TcpReceiver:
    """All TCP connections of the feed.

    Raises:
        SettingsInvalid: the certificates cannot be used.
    """

    def __init__(self, settings: FeedSettings, feed: Feed, metrics: Metrics) -> None:
        self.settings = settings
        self.feed = feed
        self.metrics = metrics
        self.gate = ConnectionGate(
            AllowList(settings.tcp_allow),
            total=settings.max_connections,
            per_address=settings.max_connections_per_address,
            per_second=settings.max_new_connections_per_second,
        )
        self.connections: set[_Connection] = set()
        self.buffer = memoryview(bytearray(_READ_BYTES))
        """What is read, of any connection, until it is looked at."""
        self.buffered = 0
        """Bytes of unfinished frames, of all connections."""
        self.certificates = Certificates(settings) if settings.tls_cert is not None else None
        self.node_lines = Pace(_NODE_LINES, _REFUSAL_LOG_SECONDS)
        self._numbers = 0
        self._throttle = log.Throttle(_REFUSAL_LOG_SECONDS)

    def number(self) -> int:
        """Return the number of a new connection."""
        self._numbers += 1
        return self._numbers

    def refused(self, reason: str, peer: str, cause: str = "") -> None:
        """Count a refusal; log it unless one was just logged."""
        self.metrics.refused(reason)
        held_back = self._throttle.passes(reason)
        if held_back is not None:
            _log.warning(
                "refused", reason=reason, peer=peer, cause=cause, more_not_logged=held_back
            )

    def enter(self, host: str) -> str | None:
        """Count a connection from `host`; return the reason if it is refused instead."""
        return self.gate.enter(host, lambda full: self._make_room(host, full))

    def _make_room(self, newcomer: str, full: str | None) -> bool:
        """End a connection that sent no event: of the lowest rank, and of these the oldest.

        Idle connections may stay for ever, as a node is idle between two blocks; so without this
        a few of them would keep every node out.
        """
        rank, late = self.gate.rank, time.monotonic() - _SILENT_SECONDS
        silent = [
            (rank(one.host), one.silent_since, one)
            for one in self.connections
            if one.silent_since is not None and full in {None, one.host}
        ]
        held = [each for each in silent if each[1] < late or each[0] < rank(newcomer)]
        if held:
            min(held, key=itemgetter(0, 1))[2].evict()
        return bool(held)

    def shed(self) -> None:
        """Close every connection."""
        for connection in list(self.connections):
            connection.end("shed")

    async def watch(self) -> None:
        """Close connections that leave something unfinished, until cancelled."""
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            now = time.monotonic()
            for connection in list(self.connections):
                connection.check(now)
            if self.certificates is not None:
                await self.certificates.follow()

    def bound_buffers(self) -> None:
        """End the connection that holds most, if all together hold too much."""
        if self.buffered > self.settings.max_buffered_bytes:
            max(self.connections, key=lambda connection: connection.pending).end("buffers-full")


class _Connection(asyncio.BufferedProtocol):
    def __init__(self, receiver: TcpReceiver) -> None:
        self._receiver = receiver
        self._feed = receiver.feed
        self._decoder = FrameDecoder(max_payload=receiver.settings.max_payload_bytes)
        self.pending = 0
        """Bytes of the unfinished frame."""
        self._ended = False
        self._peer = ""
        self.host = ""
        self._entered = False
        self._paused = False
        self._told = False
        self._tls: Channel | None = None
        self.silent_since: float | None = None
        """Since when it could have sent a first event; None once it has, and while not read."""
        self.unfinished_since: float | None = None
        """Since when it owes us the rest of a frame, or of the handshake."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports keep the interface without being of the class.
        self._transport = cast("asyncio.Transport", transport)
        receiver = self._receiver
        address = transport.get_extra_info("peername")
        if address is None:
            # It has gone already.
            self._transport.abort()
            return
        self.host = address[0]
        reason = "storage-full" if self._feed.closed else receiver.enter(self.host)
        if reason is not None:
            receiver.refused(reason, self.host)
            self._transport.abort()
            return
        self._entered = True
        _keep_alive(transport.get_extra_info("socket"))
        self._peer = f"tcp/{receiver.number()}"
        receiver.connections.add(self)
        self.silent_since = time.monotonic()
        receiver.metrics.connections("tcp", receiver.gate.open)
        if receiver.certificates is not None:
            self._tls = receiver.certificates.channel()
            self.unfinished_since = time.monotonic()
        if self._feed.congested:
            self._pause()

    def get_buffer(self, sizehint: int) -> memoryview:
        # One for all: what was read is looked at before anything else is read.
        return self._receiver.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if not self._entered:
            return
        data: bytes | memoryview = self._receiver.buffer[:nbytes]
        if self._tls is not None:
            data = self._within_tls(self._tls, bytes(data))
            if not data:
                return
        decoder = self._decoder
        decoder.receive(data)
        try:
            count, frames = decoder.take()
            if count:
                if not self._told:
                    self._tell()
                self._feed.offer(Run(self._peer, time.time_ns(), count, frames))
                if decoder.pending >= HEADER_BYTES:
                    decoder.take()
        except FrameError as error:
            run = framing_run(self._peer, error.reason, error.sample, time.time_ns())
            self._feed.offer(run)
            self.end(error.reason, str(error))
            return
        self._note_pending(started_anew=count > 0)
        if self._feed.congested:
            self._pause()

    def _within_tls(self, tls: Channel, data: bytes) -> bytes:
        """Return what `data` says, once TLS is taken off."""
        try:
            said = tls.receive(data)
        except TlsRefused as error:
            # The alert tells the peer's own log why.
            self._transport.write(tls.answer())
            self.end(error.reason, str(error), abort=False)
            return b""
        if answer := tls.answer():
            self._transport.write(answer)
            if self._transport.get_write_buffer_size() > _UNREAD_BYTES:
                self.end("tls-unread")
        if tls.established and not self.pending:
            self.unfinished_since = None
        if tls.ended:
            asyncio.get_running_loop().call_soon(self._transport.close)
        return said

    def _tell(self) -> None:
        # Whoever sends nothing is no node, and not worth a line.
        self._told = True
        self.silent_since = None
        self._receiver.gate.heard(self.host)
        if self._receiver.node_lines.passes():
            _log.info("node connected", peer=self._peer, address=self.host)

    def check(self, now: float) -> None:
        """End the connection if what it owes is late."""
        if self.unfinished_since is None:
            return
        settings = self._receiver.settings
        if self._tls is not None and not self._tls.established:
            seconds, reason = settings.tls_handshake_seconds, "tls-handshake-late"
        else:
            seconds, reason = settings.partial_frame_seconds, "partial-frame-late"
        if self.unfinished_since < now - seconds:
            self.end(reason)

    def _note_pending(self, *, started_anew: bool) -> None:
        receiver, pending = self._receiver, self._decoder.pending
        receiver.buffered += pending - self.pending
        self.pending = pending
        if not pending:
            self.unfinished_since = None
        elif started_anew or self.unfinished_since is None:
            self.unfinished_since = time.monotonic()
        receiver.bound_buffers()

    def _pause(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            # While we do not read, its rest may lie in the socket: it is not the peer who is late.
            self.unfinished_since = self.silent_since = None
            self._transport.pause_reading()
            self._feed.when_relieved(self._resume)

    def _resume(self) -> None:
        self._paused = False
        if not self._transport.is_closing():
            if not self._told:
                self.silent_since = time.monotonic()
            if self.pending or (self._tls is not None and not self._tls.established):
                self.unfinished_since = time.monotonic()
            self._transport.resume_reading()

    def close(self) -> None:
        """Close the connection because the bridge stops."""
        self._ended = True
        self._transport.abort()

    def end(self, reason: str, sentence: str = "", *, abort: bool = True) -> None:
        """Close the connection for `reason`, at once or when what was written is on its way."""
        if not self._transport.is_closing():
            self._ended = True
            self.silent_since = None
            self._receiver.refused(reason, f"{self._peer} {self.host}", sentence)
            if abort:
                self._transport.abort()
            else:
                self._transport.close()

    def evict(self) -> None:
        """End it at once, so that its place is free when this returns."""
        self.end("evicted")
        self._leave()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._entered:
            return
        receiver = self._receiver
        if self.pending and exc is None and not self._ended:
            # The node sends the same event again, whole, after it has connected anew.
            receiver.metrics.refused("partial-frame")
        if self._told and receiver.node_lines.passes():
            _log.info("node gone", peer=self._peer, unfinished_bytes=self.pending)
        self._leave()

    def _leave(self) -> None:
        receiver = self._receiver
        self._entered = False
        if not self._told:
            receiver.gate.silent(self.host)
        receiver.gate.leave(self.host)
        receiver.connections.discard(self)
        receiver.buffered -= self.pending
        receiver.metrics.connections("tcp", receiver.gate.open)


def _keep_alive(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


@asynccontextmanager
async def open_tcp(
    settings: FeedSettings, feed: Feed, metrics: Metrics
) -> AsyncIterator[tuple[TcpReceiver, int]]:
    """Listen, and yield the receiver and the port it listens on.

    Raises:
        PortInUse: the address cannot be bound.
        SettingsInvalid: the certificates cannot be used.
    """
    receiver = TcpReceiver(settings, feed, metrics)
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(
            lambda: _Connection(receiver), settings.host, settings.port, backlog=128
        )
    except OSError as error:
        raise PortInUse(
            f"cannot receive on {settings.host}:{settings.port} over TCP"
            f" (BRIDGE_FEED__PORT): {error.strerror or error}"
        ) from error
    try:
        yield receiver, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for connection in list(receiver.connections):
            connection.close()
