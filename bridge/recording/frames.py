"""Recorded bytes cut into frames again, and frames into datagrams as a node sends them. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from bridge.core.datagrams import DatagramAssembler
from bridge.core.framing import HEADER_BYTES, VERSION
from bridge.errors import FrameError

__all__ = ["DatagramFrames", "Framer", "Piece", "StreamFrames", "datagrams"]

_HEADER = struct.Struct("<Bi")
_MAX_PAYLOAD = 32 * 1024 * 1024
_SECOND_BYTES = 4096
"""Of the length and the payload, in the datagram after the version byte."""


class Piece(NamedTuple):
    """A whole frame, or bytes as they came that make none."""

    whole: bool
    data: bytes


class Framer(Protocol):
    """Finds the frames of one connection; nothing of what it is given is lost."""

    def receive(self, data: bytes, /) -> Iterator[Piece]:
        """Yield what is complete with `data`, in order."""

    def rest(self) -> list[Piece]:
        """Return what is left at the connection's end."""


class StreamFrames:
    """Frames of a TCP connection; from the first damaged header on, bytes pass as they come."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._damaged = False

    def receive(self, data: bytes, /) -> Iterator[Piece]:
        held = self._held
        held += data
        at = 0
        while not self._damaged and len(held) - at >= HEADER_BYTES:
            version, length = _HEADER.unpack_from(held, at)
            if version != VERSION or not 0 <= length <= _MAX_PAYLOAD:
                self._damaged = True
                break
            end = at + HEADER_BYTES + length
            if end > len(held):
                break
            yield Piece(True, bytes(memoryview(held)[at:end]))
            at = end
        del held[:at]
        if self._damaged:
            yield from self.rest()

    def rest(self) -> list[Piece]:
        held, self._held = self._held, bytearray()
        return [Piece(False, bytes(held))] if held else []


class DatagramFrames:
    """Frames of a UDP peer; datagrams that make no whole event pass as they came."""

    def __init__(self) -> None:
        self._assembler = DatagramAssembler(max_payload=_MAX_PAYLOAD)
        self._held: list[bytes] = []

    def receive(self, data: bytes, /) -> Iterator[Piece]:
        given_up = self._assembler.abandoned
        try:
            frame = self._assembler.receive(data)
        except FrameError:
            self._held.append(data)
            yield from self.rest()
            return
        if frame is not None:
            self._held = []
            yield Piece(True, frame)
            return
        if self._assembler.abandoned != given_up:
            yield from self.rest()
        self._held.append(data)

    def rest(self) -> list[Piece]:
        held, self._held = self._held, []
        return [Piece(False, data) for data in held]


def datagrams(frame: bytes) -> list[bytes]:
    """Return the datagrams in which a node sends `frame` (factomd, `events/eventservices`)."""
    second = 1 + _SECOND_BYTES
    pieces = [frame[:1], frame[1:second]]
    if len(frame) > second:
        pieces.append(frame[second:])
    return pieces
