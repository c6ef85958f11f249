"""Receives the feed over UDP, on the same port as TCP."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bridge import log
from bridge.core.datagrams import DatagramAssembler
from bridge.core.groups import framing_run
from bridge.errors import FrameError, PortInUse
from bridge.metrics import Metrics
from bridge.model import Run
from bridge.ports import Feed
from bridge.receivers.gate import AllowList, Pace
from bridge.settings import FeedSettings

__all__ = ["UdpReceiver", "open_udp"]

_log = log.get("udp")
_CHECK_SECONDS = 1
_REFUSAL_LOG_SECONDS = 10
_NODE_LINES = 20
"""Nodes told of in that time: more than there are, and few enough for the log."""
_SOCKET_BYTES = 8 * 1024 * 1024
"""Asked of the kernel for the socket's buffer: a burst must fit, since nothing is sent again."""


class _Peer:
    def __init__(self, number: int, max_payload: int) -> None:
        self.name = f"udp/{number}"
        self.assembler = DatagramAssembler(max_payload=max_payload)
        self.seen = 0.0
        self.told = False


class UdpReceiver(asyncio.DatagramProtocol):
    """All UDP peers of the feed; a node's source port changes when it reconnects."""

    def __init__(self, settings: FeedSettings, feed: Feed, metrics: Metrics) -> None:
        self._settings = settings
        self._feed = feed
        self._metrics = metrics
        self._allow = AllowList(settings.allow)
        self._max_payload = min(settings.max_payload_bytes, settings.udp_peer_bytes)
        self._peers: OrderedDict[tuple[str, int], _Peer] = OrderedDict()
        self._node_lines = Pace(_NODE_LINES, _REFUSAL_LOG_SECONDS)
        self._numbers = 0
        self._throttle = log.Throttle(_REFUSAL_LOG_SECONDS)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._feed.closed or self._feed.full:
            self._metrics.refused("datagram-congested")
            return
        peer = self._peers.get(addr)
        if peer is None:
            peer = self._new_peer(addr)
            if peer is None:
                return
        peer.seen = time.monotonic()
        self._peers.move_to_end(addr)
        given_up = peer.assembler.abandoned
        try:
            frame = peer.assembler.receive(data)
        except FrameError as error:
            self._metrics.refused(error.reason)
            run = framing_run(peer.name, error.reason, error.sample, time.time_ns())
            self._feed.offer(run)
            self._tell(error.reason, peer.name, str(error))
            frame = None
        if frame is not None:
            if not peer.told:
                self._tell_of(peer, addr[0])
            self._feed.offer(Run(peer.name, time.time_ns(), 1, frame))
        elif peer.assembler.pending:
            self._bound_total()
        if peer.assembler.abandoned != given_up:
            self._gave_up(peer, peer.assembler.abandoned - given_up)

    def error_received(self, exc: Exception) -> None:
        self._metrics.refused("datagram-error")
        self._tell("datagram-error", "", str(exc))

    def _new_peer(self, addr: tuple[str, int]) -> _Peer | None:
        if addr[0] not in self._allow:
            self._metrics.refused("not-allowed")
            self._tell("not-allowed", addr[0], "")
            return None
        while len(self._peers) >= self._settings.udp_peers:
            self._forget(next(iter(self._peers)))
        self._numbers += 1
        peer = self._peers[addr] = _Peer(self._numbers, self._max_payload)
        self._metrics.connections("udp", len(self._peers))
        return peer

    def _tell_of(self, peer: _Peer, address: str) -> None:
        # Whoever sends no event is no node, and not worth a line.
        peer.told = True
        if self._node_lines.passes():
            _log.info("node sends", peer=peer.name, address=address)

    def _forget(self, addr: tuple[str, int]) -> None:
        peer = self._peers.pop(addr)
        given_up = peer.assembler.abandoned
        peer.assembler.abandon()
        if peer.assembler.abandoned != given_up:
            self._gave_up(peer, 1)
        self._metrics.connections("udp", len(self._peers))

    def _bound_total(self) -> None:
        total = sum([peer.assembler.pending for peer in self._peers.values()])
        while total > self._settings.udp_total_bytes:
            addr, peer = next((a, p) for a, p in self._peers.items() if p.assembler.pending)
            total -= peer.assembler.pending
            self._forget(addr)

    def _gave_up(self, peer: _Peer, events: int) -> None:
        self._metrics.refused("datagram-incomplete", events)
        self._tell("datagram-incomplete", peer.name, "an event did not come whole")

    def _tell(self, reason: str, peer: str, cause: str) -> None:
        held_back = self._throttle.passes(reason)
        if held_back is not None:
            _log.warning(
                "refused", reason=reason, peer=peer, cause=cause, more_not_logged=held_back
            )

    async def watch(self) -> None:
        """Forget peers that fell silent, until cancelled."""
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            late = time.monotonic() - self._settings.udp_seconds
            for addr, peer in list(self._peers.items()):
                if peer.seen < late:
                    self._forget(addr)


@asynccontextmanager
async def open_udp(
    settings: FeedSettings, port: int, feed: Feed, metrics: Metrics
) -> AsyncIterator[tuple[UdpReceiver, int]]:
    """Listen on `port`, and yield the receiver and the port it listens on.

    Raises:
        PortInUse: the address cannot be bound.
    """
    loop = asyncio.get_running_loop()
    try:
        transport, receiver = await loop.create_datagram_endpoint(
            lambda: UdpReceiver(settings, feed, metrics), (settings.host, port)
        )
    except OSError as error:
        raise PortInUse(
            f"cannot receive on {settings.host}:{port} over UDP"
            f" (BRIDGE_FEED__PORT): {error.strerror or error}"
        ) from error
    try:
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BYTES)
        yield receiver, sock.getsockname()[1]
    finally:
        transport.close()
