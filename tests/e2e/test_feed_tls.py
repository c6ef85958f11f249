"""The feed over TLS: who is let in, who is not, and that nobody is in another's way."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from bridge.core.framing import frame, split_frames
from bridge.environment import load
from bridge.errors import SettingsInvalid
from bridge.metrics import Metrics
from bridge.model import Run
from bridge.receivers.tcp import open_tcp
from bridge.settings import FeedSettings
from tests.support.bridge_process import BridgeProcess
from tests.support.waiting import during, until

_TLS = Path(__file__).resolve().parent.parent / "data" / "tls"
_SERVER, _CLIENT, _SENDER = _TLS / "server.pem", _TLS / "client.pem", _TLS / "sender.pem"
_AUTHORITY, _INTRUDER = _TLS / "authority.pem", _TLS / "intruder.pem"
_MUTUAL: dict[str, Any] = {"tls_cert": _SERVER, "tls_client_ca": _AUTHORITY}
_URI = "spiffe://factom/node/1"


class _Feed:
    """What the receivers hand over to."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.congested = self.full = self.closed = False
        self._waiting: list[Callable[[], None]] = []

    def offer(self, run: Run) -> None:
        self.payloads += [payload for _, payload in split_frames(run.frames)]

    def when_relieved(self, call: Callable[[], None]) -> None:
        self._waiting.append(call)

    def relieve(self) -> None:
        self.congested = False
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()


class _Receiver:
    def __init__(self, feed: _Feed, metrics: Metrics, port: int) -> None:
        self.feed, self.port = feed, port
        self._metrics = metrics

    def refused(self, reason: str) -> float:
        found = self._metrics.registry.get_sample_value("bridge_refused_total", {"reason": reason})
        return found or 0

    @property
    def connected(self) -> float | None:
        labels = {"transport": "tcp"}
        return self._metrics.registry.get_sample_value("bridge_connections", labels)

    async def hears(self, payload: bytes, context: ssl.SSLContext | None) -> None:
        """Send `payload`, and see that it comes."""
        before = len(self.feed.payloads)
        async with _sender(self.port, context) as writer:
            writer.write(frame(payload))
            await until(lambda: self.feed.payloads[before:] == [payload])

    async def refuses(self, context: ssl.SSLContext | None) -> None:
        """Send, and see that the connection is closed and nothing comes."""
        before = list(self.feed.payloads)
        # A TLS 1.3 client is told only after its own handshake is done.
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self.port, ssl=context, server_hostname=_host(context)
            )
            try:
                writer.write(frame(b"never"))
                await asyncio.wait_for(reader.readexactly(1), 5)
            finally:
                await _end(writer)
        assert self.feed.payloads == before


@asynccontextmanager
async def _receiving(**settings: Any) -> AsyncIterator[_Receiver]:
    feed, metrics = _Feed(), Metrics()
    given = FeedSettings(port=0, **settings)
    async with (
        open_tcp(given, feed, metrics) as (receiver, port),
        during(receiver.watch()),
    ):
        yield _Receiver(feed, metrics, port)


def _trusting(own: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(_AUTHORITY))
    if own is not None:
        context.load_cert_chain(own)
    return context


def _host(context: ssl.SSLContext | None) -> str | None:
    return "localhost" if context is not None else None


@asynccontextmanager
async def _sender(port: int, context: ssl.SSLContext | None) -> AsyncIterator[asyncio.StreamWriter]:
    _, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname=_host(context)
    )
    try:
        yield writer
    finally:
        await _end(writer)


async def _end(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def test_events_come_through_tls_whatever_their_size() -> None:
    payloads = [b"", b"x", bytes(16_384), bytes(5_000_000), b"last"]
    async with _receiving(tls_cert=_SERVER) as receiver:
        async with _sender(receiver.port, _trusting()) as writer:
            writer.write(b"".join(map(frame, payloads)))
            await until(lambda: receiver.feed.payloads == payloads, 20)
        await until(lambda: receiver.connected == 0)
    assert receiver.refused("partial-frame") == 0


async def test_events_come_byte_by_byte_through_both_versions() -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = _trusting()
        context.maximum_version = version
        async with (
            _receiving(tls_cert=_SERVER) as receiver,
            _sender(receiver.port, context) as writer,
        ):
            for byte in frame(b"slow"):
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.001)
            await until(lambda heard=receiver.feed.payloads: heard == [b"slow"])  # type: ignore[misc]


async def test_an_older_tls_is_refused() -> None:
    context = _trusting()
    with pytest.warns(DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1_1
    with pytest.warns(DeprecationWarning):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with _receiving(tls_cert=_SERVER) as receiver:
        await receiver.refuses(context)
        assert receiver.refused("tls-handshake") == 1


async def test_what_is_not_tls_is_refused_and_counted() -> None:
    async with _receiving(tls_cert=_SERVER) as receiver:
        await receiver.refuses(None)
        assert receiver.refused("tls-handshake") == 1
        await receiver.hears(b"after", _trusting())


async def test_only_a_sender_with_a_certificate_of_the_authority_is_let_in() -> None:
    async with _receiving(**_MUTUAL) as receiver:
        await receiver.refuses(_trusting())
        await receiver.refuses(_trusting(_INTRUDER))
        assert receiver.refused("tls-handshake") == 2
        await receiver.hears(b"client", _trusting(_CLIENT))
        await receiver.hears(b"sender", _trusting(_SENDER))


@pytest.mark.parametrize(
    ("names", "in_it"),
    [
        ((_URI,), True),
        (("node-1.example",), True),
        (("NODE-1.EXAMPLE",), True),
        (("other.example", _URI), True),
        (("spiffe://factom/node/2",), False),
        (("spiffe://factom/NODE/1",), False),
        (("example",), False),
        (("*.example",), False),
        (("sender",), False),
    ],
)
async def test_a_sender_is_let_in_by_a_name_of_its_certificate(
    names: tuple[str, ...], in_it: bool
) -> None:
    async with _receiving(**_MUTUAL, tls_names=names) as receiver:
        if in_it:
            await receiver.hears(b"named", _trusting(_SENDER))
        else:
            await receiver.refuses(_trusting(_SENDER))
        assert receiver.refused("tls-name") == (not in_it)


async def test_a_handshake_that_stays_unfinished_is_given_up_and_is_in_nobodys_way() -> None:
    settings = {"tls_cert": _SERVER, "tls_handshake_seconds": 0.5}
    async with _receiving(**settings) as receiver:
        with closing(socket.create_connection(("127.0.0.1", receiver.port))) as idle:
            idle.setblocking(False)
            await until(lambda: receiver.connected == 1)
            await receiver.hears(b"meanwhile", _trusting())
            with closing(socket.create_connection(("127.0.0.1", receiver.port))) as half:
                half.sendall(b"\x16\x03\x01\x02\x00\x01")
                await until(lambda: receiver.refused("tls-handshake-late") == 2)
        await until(lambda: receiver.connected == 0)


async def test_a_connection_that_is_established_may_be_silent() -> None:
    settings = {"tls_cert": _SERVER, "tls_handshake_seconds": 0.2, "partial_frame_seconds": 0.2}
    async with (
        _receiving(**settings) as receiver,
        _sender(receiver.port, _trusting()) as writer,
    ):
        await asyncio.sleep(1.5)
        writer.write(frame(b"late, and welcome"))
        await until(lambda: receiver.feed.payloads == [b"late, and welcome"])
        writer.write(frame(b"never whole")[:8])
        await until(lambda: receiver.refused("partial-frame-late") == 1)


async def test_the_limits_count_before_the_handshake() -> None:
    async with _receiving(tls_cert=_SERVER, max_connections=1) as receiver:
        with closing(socket.create_connection(("127.0.0.1", receiver.port))):
            await until(lambda: receiver.connected == 1)
            await receiver.refuses(_trusting())
        assert receiver.refused("too-many-connections") == 1


async def test_reading_pauses_and_goes_on_within_tls() -> None:
    async with (
        _receiving(tls_cert=_SERVER, tls_handshake_seconds=0.5) as receiver,
        _sender(receiver.port, _trusting()) as writer,
    ):
        receiver.feed.congested = True
        writer.write(frame(b"one"))
        await until(lambda: receiver.feed.payloads == [b"one"])
        writer.write(frame(b"two"))
        await asyncio.sleep(0.1)
        assert receiver.feed.payloads == [b"one"]
        receiver.feed.relieve()
        await until(lambda: receiver.feed.payloads == [b"one", b"two"])


async def test_new_certificates_are_taken_and_old_connections_stay(tmp_path: Path) -> None:
    shown = tmp_path / "cert.pem"
    shutil.copy(_SERVER, shown)
    async with _receiving(tls_cert=shown) as receiver:
        async with _sender(receiver.port, _trusting()) as writer:
            writer.write(frame(b"before"))
            await until(lambda: receiver.feed.payloads == [b"before"])
            shown.write_text("half a cert", encoding="utf-8")
            await asyncio.sleep(1.5)
            await receiver.hears(b"the old one stays", _trusting())
            shutil.copy(_INTRUDER, shown)
            await asyncio.sleep(1.5)
            with pytest.raises(ssl.SSLCertVerificationError):
                await receiver.hears(b"never", _trusting())
            writer.write(frame(b"still"))
            await until(lambda: receiver.feed.payloads[-1] == b"still")
        shutil.copy(_SERVER, shown)
        await asyncio.sleep(1.5)
        await receiver.hears(b"again", _trusting())


async def test_certificates_that_cannot_be_used_are_told_at_the_start(tmp_path: Path) -> None:
    noise = tmp_path / "noise.pem"
    noise.write_text("no certificate", encoding="utf-8")
    for wrong in (
        {"tls_cert": noise},
        {"tls_cert": _AUTHORITY},
        {"tls_cert": _SERVER, "tls_key": _CLIENT},
        {"tls_cert": _SERVER, "tls_client_ca": noise},
    ):
        with pytest.raises(SettingsInvalid, match="BRIDGE_FEED__TLS_CERT"):
            async with _receiving(**wrong):
                pass


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"TLS_KEY": str(_SERVER)}, "BRIDGE_FEED__TLS_CERT"),
        ({"TLS_CERT": "/none/such"}, "BRIDGE_FEED__TLS_CERT: there is no such file"),
        ({"TLS_CERT": str(_SERVER), "TLS_NAMES": "a"}, "BRIDGE_FEED__TLS_CLIENT_CA"),
        ({"TLS_CERT": str(_SERVER), "HOST": "0.0.0.0"}, "UDP cannot be encrypted"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    environ: dict[str, str], sentence: str
) -> None:
    given = {f"BRIDGE_FEED__{name}": value for name, value in environ.items()}
    with pytest.raises(SettingsInvalid, match=sentence):
        load(given)


def test_with_mutual_tls_an_address_is_asked_for_only_if_networks_were_chosen() -> None:
    assert FeedSettings().tcp_allow == ("loopback",)
    assert FeedSettings(tls_cert=_SERVER).tcp_allow == ("loopback",)
    assert FeedSettings(**_MUTUAL).tcp_allow == ("any",)
    assert FeedSettings(**_MUTUAL, allow=("10.0.0.0/8",)).tcp_allow == ("10.0.0.0/8",)
    assert FeedSettings(**_MUTUAL, allow=("loopback",)).tcp_allow == ("loopback",)
    assert FeedSettings(**_MUTUAL).allow == ("loopback",), "UDP shows no certificate"


@pytest.mark.brokers
async def test_the_bridge_as_a_process_takes_the_feed_over_mutual_tls(tmp_path: Path) -> None:
    environ = {
        "BRIDGE_FEED__TLS_CERT": str(_SERVER),
        "BRIDGE_FEED__TLS_CLIENT_CA": str(_AUTHORITY),
        "BRIDGE_FEED__TLS_NAMES": _URI,
        "BRIDGE_FEED__PROTOCOLS": "tcp",
    }
    with BridgeProcess(tmp_path, environ) as bridge:
        async with _sender(bridge.feed_port, _trusting(_SENDER)) as writer:
            # Refused ones are told once, however many they are.
            for _ in range(3):
                with suppress(OSError):
                    async with _sender(bridge.feed_port, _trusting(_CLIENT)) as refused:
                        refused.write(frame(b"{}"))
                        await refused.drain()
            writer.write(frame(b"{}") * 100)
            metrics = await bridge.delivered(100)
        bridge.stop()
        lines = [line for line in bridge.logged() if line.get("reason") == "tls-name"]
    assert metrics.total("bridge_refused_total", reason="tls-name") == 3
    assert metrics.accepted == 100
    assert len(lines) == 1
    assert "localhost" in lines[0]["cause"]
