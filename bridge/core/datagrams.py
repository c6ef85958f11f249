"""Puts the datagrams of the feed over UDP together into frames.

The sender writes one event as two or three datagrams (factomd v6.5.2, `events/eventservices`,
seen in recordings): the version byte alone; the length and up to 4,092 bytes of payload; all the
rest in one. There is no number on them, so a lost one shows only by the sizes not fitting.

An event that did not come whole is given up when the next one begins, and counted; the node's
own limits lose events over about 69 kB on this transport.

Pure: the caller owns the socket and says which peer and what time it is.
"""

from __future__ import annotations

import struct

from bridge.core.framing import VERSION
from bridge.errors import FrameError

__all__ = ["DatagramAssembler"]

_LENGTH = struct.Struct("<i")
_FIRST_BYTES = 4096
"""Size of the sender's first data datagram when the event does not fit into it."""


class DatagramAssembler:
    """Assembles the datagrams of one peer; `max_payload` in bytes bounds what is kept."""

    def __init__(self, *, max_payload: int) -> None:
        self._max_payload = max_payload
        self._begun = False
        self._head = b""
        self.abandoned = 0
        """Events begun and never completed: the total since the start."""

    @property
    def pending(self) -> int:
        """Bytes kept of the unfinished event."""
        return len(self._head)

    def abandon(self) -> None:
        """Give the unfinished event up, if there is one."""
        if self._begun:
            self.abandoned += 1
        self._begun, self._head = False, b""

    def receive(self, datagram: bytes) -> bytes | None:
        """Return the frame that `datagram` completes, if it completes one.

        Raises:
            FrameError: the datagram is no part of an event; the assembler waits for the next.
        """
        if not self._head:
            if datagram == b"\x01":
                self.abandon()
                self._begun = True
                return None
            return self._first(datagram)
        missing = _LENGTH.unpack_from(self._head)[0] + 4 - len(self._head)
        if len(datagram) == missing:
            whole = bytes([VERSION]) + self._head + datagram
            self._begun, self._head = False, b""
            return whole
        self.abandon()
        if datagram == b"\x01":
            self._begun = True
            return None
        raise FrameError(
            "datagram-size",
            f"datagram of {len(datagram)} bytes where {missing} were missing",
            datagram[:64],
        )

    def _first(self, datagram: bytes) -> bytes | None:
        begun, self._begun = self._begun, False
        if not begun:
            raise FrameError(
                "datagram-stray",
                f"datagram of {len(datagram)} bytes without a version byte before it",
                datagram[:64],
            )
        length = _LENGTH.unpack_from(datagram)[0] if len(datagram) >= 4 else -1
        if not 0 <= length <= self._max_payload:
            raise FrameError(
                "frame-length",
                f"datagram announces {length} bytes, outside 0..{self._max_payload}",
                datagram[:64],
            )
        if len(datagram) == length + 4:
            return bytes([VERSION]) + datagram
        if len(datagram) != _FIRST_BYTES or length + 4 < _FIRST_BYTES:
            self.abandoned += 1
            raise FrameError(
                "datagram-size",
                f"datagram of {len(datagram)} bytes announces a payload of {length}",
                datagram[:64],
            )
        self._begun, self._head = True, datagram
        return None
