"""Plays a recording: its connections, their bytes and their ends, at its own pace times a speed.

Where nothing is to be changed, what was read is sent as it was read. With faults, or over the other
transport, the frames are found first and each is sent as a node sends it.
"""

from __future__ import annotations

import asyncio
import errno
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

from bridge.errors import ReceiverUnavailable, RecordingDamaged
from bridge.recording.faults import Fault, FaultPlan, Faults
from bridge.recording.format import Record, Transport, What
from bridge.recording.frames import DatagramFrames, Framer, StreamFrames, datagrams
from bridge.recording.line import Address, Line, dial

__all__ = ["AS_FAST_AS_POSSIBLE", "Played", "Player"]

AS_FAST_AS_POSSIBLE = math.inf
_BURST = 8
"""Datagrams after which the receiver is left time to read: UDP has no flow control."""
_BURST_SECONDS = 0.001


@dataclass
class Played:
    """What was sent, and what was not."""

    connections: int = 0
    """Of the recording; a cut makes one more, which is not counted here."""
    bytes: int = 0
    dropped: int = 0
    cut: int = 0
    stalled: int = 0
    too_large: int = 0
    """Datagrams that UDP cannot carry; the node stands before the same wall."""
    unframed: int = 0
    """Bytes that make no frame and so cannot go over the other transport."""
    hung_up: int = 0
    """Connections that the receiver ended before their end."""
    unsent: int = 0
    """Bytes that could not be sent because of it."""


class _Peer:
    """A connection of the recording, and the one that stands for it."""

    def __init__(self, transport: Transport, framer: Framer | None) -> None:
        self.transport = transport
        self.framer = framer
        self.line: Line | None = None


class Player:
    """Plays one recording to one receiver, over `transport` if it is given."""

    def __init__(
        self,
        to: Address,
        *,
        speed: float = 1,
        transport: Transport | None = None,
        faults: Faults | None = None,
        seed: int = 0,
    ) -> None:
        self.played = Played()
        self._to = to
        self._speed = speed
        self._transport = transport
        self._faults = faults or Faults()
        self._plan = FaultPlan(self._faults, seed)
        self._peers: dict[int, _Peer] = {}
        self._first_ns: int | None = None
        self._began = 0.0
        self._datagrams = 0

    async def play(self, source: Iterable[Record]) -> Played:
        """Play all of `source`.

        Raises:
            ReceiverUnavailable: nobody listens.
            RecordingDamaged: from the source, after what is before the damage was played.
        """
        damage: RecordingDamaged | None = None
        self._began = time.monotonic()
        try:
            try:
                for record in source:
                    await self._wait(record.time_ns)
                    await self._happen(record)
            except RecordingDamaged as found:
                damage = found
            for number in list(self._peers):
                await self._end(number, What.STOPPED)
        finally:
            for peer in self._peers.values():
                if peer.line is not None:
                    peer.line.abandon()
        if damage is not None:
            raise damage
        return self.played

    async def _wait(self, time_ns: int) -> None:
        if self._first_ns is None:
            self._first_ns = time_ns
        if self._speed == AS_FAST_AS_POSSIBLE:
            await asyncio.sleep(0)
            return
        due = self._began + (time_ns - self._first_ns) / 1e9 / self._speed
        await asyncio.sleep(max(0, due - time.monotonic()))

    async def _happen(self, record: Record) -> None:
        number = record.connection
        if record.what not in {What.OPEN, What.READ, What.DATAGRAM}:
            await self._end(number, record.what)
            return
        if record.what is What.OPEN:
            await self._end(number, What.STOPPED)
        if number not in self._peers:
            await self._open(record)
        if record.what is not What.OPEN:
            await self._carry(self._peers[number], record.data)

    async def _open(self, record: Record) -> None:
        transport = self._transport or record.transport
        framer: Framer | None = None
        if self._faults or transport is not record.transport:
            framer = StreamFrames() if record.transport is Transport.TCP else DatagramFrames()
        peer = _Peer(transport, framer)
        peer.line = await dial(self._to, transport)
        self._peers[record.connection] = peer
        self.played.connections += 1

    async def _carry(self, peer: _Peer, data: bytes) -> None:
        if peer.framer is None:
            await self._send(peer, data)
            return
        for whole, piece in peer.framer.receive(data):
            if whole:
                await self._send_frame(peer, piece)
            else:
                await self._send_unframed(peer, piece)

    async def _end(self, number: int, how: What) -> None:
        peer = self._peers.get(number)
        if peer is None:
            return
        if peer.framer is not None:
            for _, piece in peer.framer.rest():
                await self._send_unframed(peer, piece)
        del self._peers[number]
        await self._hang_up(peer, how)

    async def _hang_up(self, peer: _Peer, how: What = What.CLOSE) -> None:
        line, peer.line = peer.line, None
        if line is None:
            return
        try:
            await (line.reset() if how is What.RESET else line.close())
        except OSError as error:
            raise ReceiverUnavailable(f"nobody listens on {self._to} over UDP") from error

    async def _send_unframed(self, peer: _Peer, data: bytes) -> None:
        changed = isinstance(peer.framer, StreamFrames) is not (peer.transport is Transport.TCP)
        if changed:
            self.played.unframed += len(data)
        else:
            await self._send(peer, data)

    async def _send_frame(self, peer: _Peer, frame: bytes) -> None:
        if peer.transport is Transport.UDP:
            first, *others = datagrams(frame)
        else:
            half = len(frame) // 2
            first, others = frame[:half], [frame[half:]]
        fault = self._plan.next()
        if fault is Fault.DROP:
            self.played.dropped += 1
            return
        if fault is Fault.CUT and peer.line is not None:
            self.played.cut += 1
            await self._send(peer, first)
            await self._hang_up(peer)
            peer.line = await dial(self._to, peer.transport)
        elif fault is Fault.STALL:
            self.played.stalled += 1
            await self._send(peer, first)
            await asyncio.sleep(self._faults.stall_seconds)
            # What follows is later by as much, as it would be with a node.
            self._began += self._faults.stall_seconds
            first = b""
        if peer.transport is Transport.TCP:
            first, others = first + others[0], []
        for piece in filter(None, (first, *others)):
            await self._send(peer, piece)

    async def _send(self, peer: _Peer, data: bytes) -> None:
        if peer.line is None:
            self.played.unsent += len(data)
            return
        try:
            await peer.line.send(data)
        except ConnectionRefusedError as error:
            raise ReceiverUnavailable(f"nobody listens on {self._to} over UDP") from error
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                self.played.too_large += 1
                return
            self.played.hung_up += 1
            self.played.unsent += len(data)
            peer.line.abandon()
            peer.line = None
            return
        self.played.bytes += len(data)
        if peer.transport is Transport.UDP:
            self._datagrams += 1
            if self._datagrams % _BURST == 0:
                await asyncio.sleep(_BURST_SECONDS)
