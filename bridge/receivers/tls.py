"""TLS of the feed's connections: the certificates, and one channel for each connection.

The bytes pass through memory, not through the loop's own TLS. So a connection is counted, bounded
and timed from its first byte, the handshake included, and nothing that a peer says reaches the
feed before the name in its certificate was looked at.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bridge import log
from bridge.errors import SettingsInvalid
from bridge.settings import FeedSettings

__all__ = ["Certificates", "Channel", "TlsRefused"]

_log = log.get("tls")
_RECORD_BYTES = 16_384
_CLIENT_NAMES = {"DNS", "URI"}
_Stamp = tuple[tuple[int, int, int], ...]


class TlsRefused(Exception):
    """A peer's TLS is refused; `reason` is the metric's label."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class Certificates:
    """What the bridge shows, and whose certificates it takes. Follows the files when they change.

    Raises:
        SettingsInvalid: the files cannot be used.
    """

    def __init__(self, settings: FeedSettings) -> None:
        self._settings = settings
        self._names = frozenset(_plain(name) for name in settings.tls_names)
        self._stamp = self._look()
        try:
            self._context = _context(settings)
        except (OSError, ssl.SSLError) as error:
            raise SettingsInvalid(f"BRIDGE_FEED__TLS_CERT: {_unusable(error)}") from error

    def channel(self) -> Channel:
        """Return the channel of a new connection, with the certificates of this moment."""
        return Channel(self._context, self._names)

    async def follow(self) -> None:
        """Read the files again if they changed. Connections that exist keep what they have."""
        stamp = await asyncio.to_thread(self._look)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._context = await asyncio.to_thread(_context, self._settings)
        except (OSError, ssl.SSLError) as error:
            # A certificate may be there before its key: the next change is looked at again.
            _log.error("certificates not taken, the old ones stay", cause=_unusable(error))
        else:
            _log.info("certificates read again")

    def _look(self) -> _Stamp:
        return tuple(_stamp(path) for path in _files(self._settings))


def _files(settings: FeedSettings) -> Iterable[Path]:
    return [
        path
        for path in (settings.tls_cert, settings.tls_key, settings.tls_client_ca)
        if path is not None
    ]


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_size, found.st_mtime_ns


def _context(settings: FeedSettings) -> ssl.SSLContext:
    # Not `create_default_context`: that one obeys SSLKEYLOGFILE of the environment.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A sender connects once for days: resuming would only be more to get wrong.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
    context.num_tickets = 0
    assert settings.tls_cert is not None
    # With a password given, an encrypted key is an error; without one, OpenSSL asks the terminal.
    context.load_cert_chain(settings.tls_cert, settings.tls_key, password="")
    if settings.tls_client_ca is not None:
        context.load_verify_locations(settings.tls_client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _unusable(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"the certificate or its key cannot be used: {error.reason or error}"
    return f"cannot read {error.filename or 'a file'}: {error.strerror}"


def _plain(name: str) -> str:
    """Return a name as it is compared: DNS names have no case, the rest of a URI has."""
    return name if ":" in name else name.lower()


class Channel:
    """TLS of one connection: bytes from the peer in, what it says out."""

    def __init__(self, context: ssl.SSLContext, names: frozenset[str]) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._names = names
        self.established = False
        """Whether the handshake is done, and the peer one that may send."""
        self.ended = False
        """Whether the peer said that nothing more will come."""

    def receive(self, data: bytes) -> bytes:
        """Take what arrived in; return what the peer says, if anything is complete.

        Raises:
            TlsRefused: the peer's TLS is broken, or its certificate is not one that is let in.
        """
        self._incoming.write(data)
        try:
            if not self.established:
                self._tls.do_handshake()
                self._check_name()
                self.established = True
            return self._said()
        except ssl.SSLWantReadError:
            return b""
        except ssl.SSLError as error:
            reason = "tls-broken" if self.established else "tls-handshake"
            raise TlsRefused(reason, _why(error)) from error

    def answer(self) -> bytes:
        """Return what the peer must be sent; TLS alone speaks here, the bridge never does."""
        return self._outgoing.read()

    def _said(self) -> bytes:
        parts: list[bytes] = []
        try:
            while part := self._tls.read(_RECORD_BYTES):
                parts.append(part)
            self.ended = True
        except ssl.SSLError:
            # What was said before the damage counts; asked again, OpenSSL fails again.
            if not parts:
                raise
        return b"".join(parts)

    def _check_name(self) -> None:
        if not self._names:
            return
        certificate: dict[str, Any] = self._tls.getpeercert() or {}
        told = [
            value for kind, value in certificate.get("subjectAltName", ()) if kind in _CLIENT_NAMES
        ]
        if self._names.isdisjoint(map(_plain, told)):
            raise TlsRefused("tls-name", f"the certificate is of {', '.join(told) or 'no name'}")


def _why(error: ssl.SSLError) -> str:
    return str(getattr(error, "verify_message", None) or error.reason or error)
