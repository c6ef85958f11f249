"""The sockets of a played recording: written to, never read, and ended as the node's was."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import re
import socket
import struct
import termios
import time
from typing import NamedTuple

from bridge.errors import ReceiverUnavailable, UsageError
from bridge.recording.format import Transport

__all__ = ["Address", "Line", "dial"]

_PORT = re.compile("[0-9]{1,5}")
_RESET_SECONDS = 5
_RETRY_SECONDS = 0.001


class Address(NamedTuple):
    """Where a recording is played to."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read HOST:PORT, an IPv6 address in brackets.

        Raises:
            UsageError: it is none.
        """
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not (_PORT.fullmatch(port) and 0 < int(port) < 65_536):
            raise UsageError(f"{text!r} is not HOST:PORT")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Line:
    """One connection, or one source port over UDP."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._is_stream = connected.type == socket.SOCK_STREAM

    async def send(self, data: bytes) -> None:
        """Hand `data` to the kernel, as one datagram over UDP; waits for it without limit.

        Raises:
            OSError: the receiver is gone, or (EMSGSIZE) the datagram is too large.
        """
        if self._is_stream:
            await asyncio.get_running_loop().sock_sendall(self._socket, data)
            return
        while True:
            try:
                self._socket.send(data)
            except BlockingIOError:
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return

    async def close(self) -> None:
        """Close it in order.

        Raises:
            OSError: nobody listened to the last datagram.
        """
        refused = (
            0 if self._is_stream else self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        )
        self._socket.close()
        if refused:
            raise OSError(refused, errno.errorcode.get(refused, "refused"))

    async def reset(self) -> None:
        """Break it, once the receiver's kernel has what was sent."""
        if self._is_stream:
            late = time.monotonic() + _RESET_SECONDS
            while self._unsent() and time.monotonic() < late:  # noqa: ASYNC110  (nobody tells)
                await asyncio.sleep(_RETRY_SECONDS)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def abandon(self) -> None:
        """Close it, whatever state it is in."""
        self._socket.close()

    def _unsent(self) -> int:
        found: int = struct.unpack("i", fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(4)))[0]
        return found


async def dial(to: Address, transport: Transport) -> Line:
    """Connect to the first of the addresses of `to` that answers.

    Raises:
        ReceiverUnavailable: nobody listens there. Over UDP this shows only after something was sent.
    """
    loop = asyncio.get_running_loop()
    kind = socket.SOCK_STREAM if transport is Transport.TCP else socket.SOCK_DGRAM
    refused: OSError | None = None
    try:
        found = await loop.getaddrinfo(*to, type=kind)
    except (OSError, UnicodeError) as error:
        raise ReceiverUnavailable(f"{to} is no address: {error}") from error
    for family, _, proto, _, address in found:
        tried = socket.socket(family, kind, proto)
        try:
            tried.setblocking(False)
            if transport is Transport.TCP:
                tried.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(tried, address)
        except OSError as error:
            tried.close()
            refused = error
        except BaseException:
            tried.close()
            raise
        else:
            return Line(tried)
    raise ReceiverUnavailable(f"nobody listens on {to}: {refused}") from refused
