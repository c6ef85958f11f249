"""Splits the feed's byte stream into frames.

Wire form, per event (factomd v6.5.2, `events/eventservices`):

    version   1 byte, always 1
    length    4 bytes, int32 little-endian, size of the payload in bytes
    payload   `length` bytes

A receiver stores chunks as they come and takes out the longest prefix of whole frames, as one
bytes object: frames are found here, never copied one by one. The journal keeps them in this form.

Pure: the caller owns the socket. Whatever the bytes and however they are cut, the only exception
that leaves this module is `FrameError`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from types import ModuleType

from bridge.core.native import native
from bridge.errors import FrameError

__all__ = [
    "HEADER_BYTES",
    "SAMPLE_BYTES",
    "VERSION",
    "FrameDecoder",
    "frame",
    "frame_at",
    "split_frames",
]

VERSION = 1
SAMPLE_BYTES = 64
"""How much of a damaged stream is kept for the dead letter."""

_HEADER = struct.Struct("<Bi")
HEADER_BYTES = _HEADER.size


def frame(payload: bytes, version: int = VERSION) -> bytes:
    """Return `payload` with its header."""
    return _HEADER.pack(version, len(payload)) + payload


def split_frames(frames: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (first byte, payload) of each frame of `frames`, which holds whole frames only."""
    unpack = _HEADER.unpack_from
    at, end = 0, len(frames)
    while at < end:
        version, length = unpack(frames, at)
        at += 5 + length
        yield version, frames[at - length : at]


def frame_at(frames: bytes, at: int) -> tuple[int, bytes, int]:
    """Return first byte and payload of the frame at `at`, and where the next one begins."""
    version, length = _HEADER.unpack_from(frames, at)
    end = at + HEADER_BYTES + length
    return version, frames[end - length : end], end


def _whole(buffer: bytes | bytearray, limit: int) -> tuple[int, int]:
    """Return how many whole frames stand at the buffer's beginning, and where they end."""
    unpack, size = _HEADER.unpack_from, len(buffer)
    count = at = 0
    while size - at >= HEADER_BYTES:
        version, length = unpack(buffer, at)
        if version != VERSION or not 0 <= length <= limit or at + HEADER_BYTES + length > size:
            break
        at += HEADER_BYTES + length
        count += 1
    return count, at


class FrameDecoder:
    """Turns chunks of one stream into runs of whole frames, in order.

    `max_payload` (bytes) bounds the memory that one peer can claim with a length field.
    """

    def __init__(self, *, max_payload: int, compiled: ModuleType | None = native) -> None:
        self._max_payload = max_payload
        self._whole = _whole if compiled is None else compiled.whole
        self._buffer = bytearray()
        self._needed = HEADER_BYTES

    @property
    def pending(self) -> int:
        """Bytes of the unfinished frame held back."""
        return len(self._buffer)

    def receive(self, chunk: bytes) -> None:
        """Store `chunk`; parses nothing."""
        self._buffer += chunk

    def take(self) -> tuple[int, bytes]:
        """Return how many whole frames there are, and their bytes, and forget them.

        Call it until it gives 0: damage is told only after the good frames before it were taken.

        Raises:
            FrameError: when the next frame's header is damaged. The header stays, so a further
                call raises again.
        """
        buffer = self._buffer
        size = len(buffer)
        if size < self._needed:
            # A large frame arrives in hundreds of reads: look again only when it can be whole.
            return 0, b""
        count, at = self._whole(buffer, self._max_payload)
        self._needed = self._next(at, is_first=not count)
        if not count:
            return 0, b""
        if at == size:
            self._buffer = bytearray()
            return count, bytes(buffer)
        taken = bytes(memoryview(buffer)[:at])
        del buffer[:at]
        return count, taken

    def _next(self, at: int, *, is_first: bool) -> int:
        """Return how many bytes the unfinished frame at `at` has, or its header where that is cut.

        Raises:
            FrameError: its header is damaged, and no good frames are to be taken first.
        """
        if len(self._buffer) - at < HEADER_BYTES:
            return HEADER_BYTES
        version, length = _HEADER.unpack_from(self._buffer, at)
        if version == VERSION and 0 <= length <= self._max_payload:
            return HEADER_BYTES + int(length)
        if is_first:
            raise self._damaged(version, length)
        return HEADER_BYTES

    def _damaged(self, version: int, length: int) -> FrameError:
        sample = bytes(self._buffer[:SAMPLE_BYTES])
        if version != VERSION:
            return FrameError(
                "frame-version", f"frame begins with byte {version}, expected {VERSION}", sample
            )
        return FrameError(
            "frame-length", f"frame length {length} is outside 0..{self._max_payload}", sample
        )
