"""The sender's connection: a socket that is written to and never read, over TCP or UDP."""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol

from bridge.emitter.config import LiveFeedConfig

__all__ = ["Line", "dial"]


class Line(Protocol):
    """A connection to the receiver."""

    async def write(self, data: bytes, /) -> None:
        """Hand `data` to the kernel in one write, or one datagram; waits for it without limit.

        Raises:
            OSError: the receiver is gone, or the datagram is too large.
        """

    def close(self) -> None:
        """Close it; what the kernel has, it may still deliver."""


class _Socket:
    def __init__(self, connected: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self._socket = connected
        self._loop = loop

    async def write(self, data: bytes, /) -> None:
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        if sent < len(data):
            await self._loop.sock_sendall(self._socket, data[sent:])

    def close(self) -> None:
        self._socket.close()


async def dial(config: LiveFeedConfig) -> Line:
    """Connect to the receiver that `config` names, at the first of its addresses that answers.

    The sender's own port is bound for both transports. (factomd v6.17 can only connect over TCP
    with one, and sends nothing over UDP.) If the receiver's port is the same and nobody listens
    there, TCP connects the socket to itself, and so it does for a node.

    Raises:
        OSError: no address answers.
    """
    loop = asyncio.get_running_loop()
    kind = socket.SOCK_STREAM if config.protocol == "tcp" else socket.SOCK_DGRAM
    try:
        found = await loop.getaddrinfo(config.host.strip("[]"), config.port, type=kind)
    except UnicodeError as error:
        raise OSError(f"{config.host!r} is no host's name: {error}") from error
    refused = OSError(f"no address of {config.host}")
    for family, _, proto, _, address in found:
        tried = socket.socket(family, kind, proto)
        try:
            tried.setblocking(False)
            if config.protocol == "tcp":
                # Go's default: the version byte leaves at once, in a segment of its own.
                tried.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if config.sender_port:
                tried.bind(("", config.sender_port))
            await loop.sock_connect(tried, address)
        except OSError as error:
            tried.close()
            refused = error
        except BaseException:
            tried.close()
            raise
        else:
            return _Socket(tried, loop)
    raise refused
