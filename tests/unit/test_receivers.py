"""`receivers.tcp` and `receivers.udp`: what a peer may hold, how long, and who gives way to whom."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from bridge.core.framing import frame, split_frames
from bridge.metrics import Metrics
from bridge.model import Run
from bridge.receivers.tcp import TcpReceiver, open_tcp
from bridge.receivers.udp import UdpReceiver
from bridge.settings import FeedSettings, StatusSettings
from tests.support.waiting import during, until

MIB = 1024 * 1024
_SILENT_SECONDS = 5
_FIRST_BYTES = 4_096
"""Of an event over UDP, the first datagram that holds bytes of it."""
_NODE, _OTHER, _THIRD = "127.0.0.2", "127.0.0.3", "127.0.0.4"


class _Feed:
    """What the receivers hand over to."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.congested = self.full = self.closed = False

    def offer(self, run: Run) -> None:
        self.payloads += [payload for _, payload in split_frames(run.frames)]

    def when_relieved(self, call: Callable[[], None]) -> None:
        """Nothing relieves this one."""


def _refused(metrics: Metrics, reason: str) -> float:
    return metrics.registry.get_sample_value("bridge_refused_total", {"reason": reason}) or 0


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (
            FeedSettings(),
            {
                "max_payload_bytes": 32 * MIB,
                "max_buffered_bytes": 128 * MIB,
                "partial_frame_seconds": 15,
                "max_connections": 16,
                "max_connections_per_address": 4,
                "max_new_connections_per_second": 20,
                "udp_peers": 64,
                "udp_peer_bytes": 8 * MIB,
                "udp_total_bytes": 32 * MIB,
                "udp_seconds": 10,
                "host": "127.0.0.1",
                "allow": ("loopback",),
            },
        ),
        (
            StatusSettings(),
            {"host": "127.0.0.1", "max_connections": 32, "request_seconds": 5, "token": None},
        ),
    ],
    ids=["feed", "status"],
)
def test_limits_are_as_promised_when_nothing_is_set(limits: Any, expected: dict[str, Any]) -> None:
    assert {name: getattr(limits, name) for name in expected} == expected


# TCP


class _Stand:
    def __init__(self, receiver: TcpReceiver, port: int) -> None:
        self.receiver, self.port = receiver, port
        self._writers: list[asyncio.StreamWriter] = []

    def refused(self, reason: str) -> float:
        return _refused(self.receiver.metrics, reason)

    async def connects(self, host: str, sent: bytes = b"", *, stays: bool = True) -> Any:
        """Connect from `host`; return the receiver's side of it if it is to stay."""
        before = set(self.receiver.connections)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(host, 0))
        self._writers.append(writer)
        if not stays:
            with suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(1), 10) == b""
            return None
        await until(lambda: bool(self.receiver.connections - before))
        (made,) = self.receiver.connections - before
        if sent:
            writer.write(sent)
            await until(lambda: made.pending > 0 or made.silent_since is None)
        return made

    async def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        await until(lambda: not self.receiver.connections)
        await asyncio.gather(
            *(writer.wait_closed() for writer in self._writers), return_exceptions=True
        )


@asynccontextmanager
async def _receiving(**settings: Any) -> AsyncIterator[_Stand]:
    async with open_tcp(FeedSettings(port=0, **settings), _Feed(), Metrics()) as (receiver, port):
        stand = _Stand(receiver, port)
        try:
            yield stand
        finally:
            await stand.close()


def _long_silent(connection: Any) -> None:
    connection.silent_since -= _SILENT_SECONDS + 1


async def test_an_idle_connection_stays_while_nobody_wants_its_place() -> None:
    async with _receiving() as stand:
        idle = await stand.connects(_NODE)
        idle.check(time.monotonic() + 86_400)
        await asyncio.sleep(0.05)
        assert stand.receiver.connections == {idle}


async def test_a_frame_has_15_s_to_come_whole() -> None:
    async with _receiving() as stand:
        slow = await stand.connects(_NODE, b"\1")
        slow.check(slow.unfinished_since + 14.9)
        assert stand.refused("partial-frame-late") == 0
        slow.check(slow.unfinished_since + 15.1)
        assert stand.refused("partial-frame-late") == 1


async def test_above_the_bytes_for_all_the_one_that_holds_most_is_closed() -> None:
    async with _receiving(max_buffered_bytes=MIB) as stand:
        small = await stand.connects(_NODE, struct.pack("<Bi", 1, MIB) + bytes(1_000))
        large = await stand.connects(_OTHER, struct.pack("<Bi", 1, 2 * MIB) + bytes(MIB))
        await until(lambda: large not in stand.receiver.connections)
        assert stand.receiver.connections == {small}
        assert stand.refused("buffers-full") == 1
        assert stand.receiver.buffered == small.pending


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="this system has no TCP_KEEPIDLE")
async def test_a_peer_that_died_is_noticed_after_60_s_and_3_times_10() -> None:
    async with _receiving() as stand:
        made = await stand.connects(_NODE)
        sock = made._transport.get_extra_info("socket")
        names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert [sock.getsockopt(socket.IPPROTO_TCP, name) for name in names] == [60, 10, 3]


async def test_when_all_places_are_taken_the_longest_silent_one_gives_way() -> None:
    async with _receiving(max_connections=2) as stand:
        oldest = await stand.connects(_OTHER)
        younger = await stand.connects(_THIRD)
        await stand.connects(_NODE, stays=False)
        assert stand.refused("too-many-connections") == 1, "each has a few seconds"
        _long_silent(oldest)
        _long_silent(younger)
        node = await stand.connects(_NODE)
        assert stand.receiver.connections == {younger, node}
        assert stand.refused("evicted") == 1
        assert stand.receiver.gate.open == 2


async def test_who_sent_an_event_never_gives_way() -> None:
    async with _receiving(max_connections=1) as stand:
        node = await stand.connects(_NODE, frame(b"event"))
        await stand.connects(_OTHER, stays=False)
        assert stand.receiver.connections == {node}


async def test_a_silent_one_gives_way_at_once_to_an_address_that_sent_events() -> None:
    async with _receiving(max_connections=1) as stand:
        stand.receiver.gate.heard(_NODE)
        await stand.connects(_OTHER)
        node = await stand.connects(_NODE)
        await stand.connects(_OTHER, stays=False)
        assert stand.receiver.connections == {node}
        assert stand.refused("evicted") == 1


async def test_an_address_that_only_was_silent_gives_way_at_once_to_a_new_one() -> None:
    async with _receiving(max_connections=1) as stand:
        first = await stand.connects(_OTHER)
        _long_silent(first)
        await stand.connects(_THIRD)
        assert stand.refused("evicted") == 1
        await stand.connects(_OTHER, stays=False)
        stand.receiver.gate.silent(_THIRD)
        node = await stand.connects(_NODE)
        assert stand.receiver.connections == {node}


async def test_an_address_with_all_its_places_taken_loses_a_silent_one_of_its_own() -> None:
    async with _receiving(max_connections_per_address=1) as stand:
        other = await stand.connects(_OTHER)
        own = await stand.connects(_NODE)
        _long_silent(other)
        _long_silent(own)
        again = await stand.connects(_NODE)
        assert stand.receiver.connections == {other, again}


async def test_who_is_not_read_from_does_not_give_way() -> None:
    async with _receiving(max_connections=1) as stand:
        stand.receiver.feed.congested = True  # type: ignore[misc]
        made = await stand.connects(_OTHER)
        stand.receiver.gate.heard(_NODE)
        await stand.connects(_NODE, stays=False)
        assert stand.receiver.connections == {made}, "its event may lie in the socket"
        stand.receiver.feed.congested = False  # type: ignore[misc]
        made._resume()
        node = await stand.connects(_NODE)
        assert stand.receiver.connections == {node}


# UDP


def _begin(receiver: UdpReceiver, number: int, payload_bytes: int) -> None:
    """Send the version byte and the first datagram of an event that does not become whole."""
    address = (_NODE, number)
    receiver.datagram_received(b"\1", address)
    first = struct.pack("<i", payload_bytes).ljust(_FIRST_BYTES, b"x")
    receiver.datagram_received(first, address)


def _udp(**settings: Any) -> tuple[UdpReceiver, Metrics]:
    metrics = Metrics()
    return UdpReceiver(FeedSettings(**settings), _Feed(), metrics), metrics


def _peers(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("bridge_connections", {"transport": "udp"})


@pytest.mark.parametrize(
    ("allow", "peers", "refused"),
    [(("loopback",), 1, 2), (("10.0.0.0/8",), 1, 2), (("any",), 3, 0)],
)
def test_datagrams_of_others_are_refused_and_never_kept(
    allow: tuple[str, ...], peers: int, refused: int
) -> None:
    receiver, metrics = _udp(allow=allow)
    for host in (_NODE, "10.1.2.3", "192.0.2.7"):
        receiver.datagram_received(b"\1", (host, 7))
    assert _peers(metrics) == peers
    assert _refused(metrics, "not-allowed") == refused


def test_datagrams_are_refused_when_the_journal_is_far_behind_and_not_before() -> None:
    receiver, metrics = _udp()
    receiver._feed.congested = True  # type: ignore[misc]
    receiver.datagram_received(b"\1", (_NODE, 7))
    assert _refused(metrics, "datagram-congested") == 0
    receiver._feed.full = True  # type: ignore[misc]
    receiver.datagram_received(b"\1", (_NODE, 7))
    assert _refused(metrics, "datagram-congested") == 1


def test_the_65th_udp_peer_takes_the_place_of_the_one_longest_silent() -> None:
    receiver, metrics = _udp()
    for number in range(65):
        receiver.datagram_received(b"\1", (_NODE, number))
    assert _peers(metrics) == 64
    assert _refused(metrics, "datagram-incomplete") == 1


def test_an_event_above_the_bytes_of_one_udp_peer_is_refused_before_it_is_kept() -> None:
    receiver, metrics = _udp()
    for payload_bytes, refused in ((8 * MIB, 0), (8 * MIB + 1, 1)):
        _begin(receiver, payload_bytes, payload_bytes)
        assert _refused(metrics, "frame-length") == refused


def test_above_the_bytes_of_all_udp_peers_the_oldest_are_given_up() -> None:
    receiver, metrics = _udp(udp_total_bytes=20_000)
    kept = 0
    while not _refused(metrics, "datagram-incomplete"):
        _begin(receiver, kept, MIB)
        kept += 1
        assert kept < 100
    held = sum(peer.assembler.pending for peer in receiver._peers.values())
    assert 10_000 < held <= 20_000
    assert (_NODE, 0) not in receiver._peers


async def test_an_udp_event_that_stays_unfinished_is_given_up() -> None:
    receiver, metrics = _udp()
    receiver.datagram_received(b"\1", (_NODE, 1))
    receiver.datagram_received(b"\1", (_NODE, 2))
    receiver._peers[_NODE, 1].seen -= 10.1
    async with during(receiver.watch()):
        await until(lambda: _refused(metrics, "datagram-incomplete") == 1)
    assert list(receiver._peers) == [(_NODE, 2)]
