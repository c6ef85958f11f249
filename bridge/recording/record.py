"""Listens as the bridge does, and writes down what arrives, when, from whom, and how it ended.

What is not the feed is recorded too: a bug report shall hold what was really sent. Each record
reaches the file with its block: when 256 kB are full, and every second.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import cast

from bridge.core.datagrams import DatagramAssembler
from bridge.core.framing import FrameDecoder
from bridge.errors import FrameError, PortInUse, RecordingUnwritable
from bridge.receivers.gate import AllowList, ConnectionGate
from bridge.recording.file import FileWriter
from bridge.recording.format import Record, Transport, What
from bridge.settings import FeedSettings

__all__ = ["Recorded", "Recorder", "open_recorder"]

_FLUSH_SECONDS = 1
_SOCKET_BYTES = 8 * 1024 * 1024


@dataclass
class Recorded:
    """What arrived so far."""

    peers: int = 0
    open: int = 0
    frames: int = 0
    bytes: int = 0
    refused: int = 0
    """Connections and datagrams of peers that the settings do not let in."""
    gone: int = 0
    """Connections that broke before it was known whose they were."""


class Recorder:
    """Writes what its listeners tell it, until the file cannot grow or it is closed."""

    def __init__(self, file: FileWriter, settings: FeedSettings) -> None:
        self.settings = settings
        self.allow = AllowList(settings.allow)
        self.gate = ConnectionGate(
            self.allow,
            total=settings.max_connections,
            per_address=settings.max_connections_per_address,
            per_second=settings.max_new_connections_per_second,
        )
        self.recorded = Recorded()
        self.port = settings.port
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done, with the error, when the file cannot grow."""
        self._file = file
        self._open: dict[int, Transport] = {}
        self.closed = False
        """Whether nothing is recorded any more."""
        # The wall clock may be set while this runs; the distances in the recording must not show it.
        self._ahead = time.time_ns() - time.monotonic_ns()

    def opened(self, transport: Transport, host: str, port: int) -> int:
        """Record a new peer, and return its number."""
        self.recorded.peers += 1
        number = self.recorded.peers
        self._open[number] = transport
        self._note(number, transport, What.OPEN, f"{host}:{port}".encode())
        return number

    def arrived(self, number: int, data: bytes, frames: int) -> None:
        """Record what one read gave, which completed so many frames."""
        transport = self._open[number]
        what = What.READ if transport is Transport.TCP else What.DATAGRAM
        self.recorded.bytes += len(data)
        self.recorded.frames += frames
        self._note(number, transport, what, data)

    def ended(self, number: int, how: What) -> None:
        """Record the end of a peer, unless it was recorded already."""
        transport = self._open.pop(number, None)
        if transport is not None:
            self._note(number, transport, how)

    def close(self) -> None:
        """Record that what is open is ended from here; nothing is recorded any more."""
        for number in list(self._open):
            self.ended(number, What.STOPPED)
        self.closed = True

    async def tend(self) -> None:
        """Bring to the file what has gathered, until cancelled."""
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            with self._failing():
                self._file.flush()

    def _note(self, number: int, transport: Transport, what: What, data: bytes = b"") -> None:
        self.recorded.open = len(self._open)
        if self.closed:
            return
        now = time.monotonic_ns() + self._ahead
        with self._failing():
            self._file.add(Record(now, number, transport, what, data))

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except RecordingUnwritable as error:
            self.closed = True
            if not self.failed.done():
                self.failed.set_exception(error)


class _Connection(asyncio.Protocol):
    def __init__(self, recorder: Recorder, live: set[asyncio.Transport]) -> None:
        self._recorder = recorder
        self._live = live
        self._decoder: FrameDecoder | None = FrameDecoder(
            max_payload=recorder.settings.max_payload_bytes
        )
        self._number = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        address = transport.get_extra_info("peername")
        if address is None:
            self._recorder.recorded.gone += 1
            self._transport.abort()
            return
        self._host, port = address[:2]
        if self._recorder.closed or self._recorder.gate.enter(self._host) is not None:
            self._recorder.recorded.refused += 1
            self._transport.abort()
            return
        self._live.add(self._transport)
        self._number = self._recorder.opened(Transport.TCP, self._host, port)

    def data_received(self, data: bytes) -> None:
        if self._number:
            self._recorder.arrived(self._number, data, self._whole(data))

    def _whole(self, data: bytes) -> int:
        """Return how many frames `data` completes; no more are counted once one is damaged."""
        if self._decoder is None:
            return 0
        self._decoder.receive(data)
        try:
            return self._decoder.take()[0]
        except FrameError:
            self._decoder = None
            return 0

    def connection_lost(self, exc: Exception | None) -> None:
        if self._number:
            self._live.discard(self._transport)
            self._recorder.gate.leave(self._host)
            self._recorder.ended(self._number, What.CLOSE if exc is None else What.RESET)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._peers: OrderedDict[tuple[str, int], tuple[int, DatagramAssembler]] = OrderedDict()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if addr not in self._peers and not self._enter(addr):
            return
        self._peers.move_to_end(addr)
        number, assembler = self._peers[addr]
        try:
            whole = assembler.receive(data) is not None
        except FrameError:
            whole = False
        self._recorder.arrived(number, data, int(whole))

    def _enter(self, addr: tuple[str, int]) -> bool:
        if addr[0] not in self._recorder.allow:
            self._recorder.recorded.refused += 1
            return False
        settings = self._recorder.settings
        if len(self._peers) >= settings.udp_peers:
            # UDP peers only fall silent: the one that did so longest ago makes room.
            _, (number, _) = self._peers.popitem(last=False)
            self._recorder.ended(number, What.CLOSE)
        number = self._recorder.opened(Transport.UDP, *addr[:2])
        self._peers[addr] = number, DatagramAssembler(max_payload=settings.udp_peer_bytes)
        return True


@asynccontextmanager
async def open_recorder(settings: FeedSettings, file: FileWriter) -> AsyncIterator[Recorder]:
    """Listen, and record into `file` until left; what is open then is recorded as stopped.

    Raises:
        PortInUse: the address cannot be bound.
    """
    loop = asyncio.get_running_loop()
    recorder = Recorder(file, settings)
    server: asyncio.Server | None = None
    datagrams: asyncio.DatagramTransport | None = None
    live: set[asyncio.Transport] = set()
    tending = asyncio.create_task(recorder.tend())
    try:
        try:
            if "tcp" in settings.protocols:
                server = await loop.create_server(
                    lambda: _Connection(recorder, live), settings.host, settings.port, backlog=128
                )
                recorder.port = server.sockets[0].getsockname()[1]
            if "udp" in settings.protocols:
                datagrams, _ = await loop.create_datagram_endpoint(
                    lambda: _Datagrams(recorder), (settings.host, recorder.port)
                )
                sock = datagrams.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BYTES)
                recorder.port = sock.getsockname()[1]
        except OSError as error:
            raise PortInUse(
                f"cannot record on {settings.host}:{recorder.port}: {error.strerror or error}"
            ) from error
        yield recorder
    finally:
        tending.cancel()
        if server is not None:
            server.close()
        if datagrams is not None:
            datagrams.close()
        recorder.close()
        for transport in list(live):
            transport.abort()
        await asyncio.gather(tending, return_exceptions=True)
