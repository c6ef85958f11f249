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
    "size_of_frame",
    "split_frames",
    "whole_frames",
]

VERSION = 1
SAMPLE_BYTES = 64
"""How much of a damaged stream is kept for the dead letter."""

_CHUNK_BYTES = 4_096
"""Smaller chunks are gathered: a list of single bytes would take forty times their memory."""

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


def size_of_frame(frames: bytes, at: int) -> int:
    """Return how many bytes the frame at `at` has, its header included."""
    return HEADER_BYTES + int(_HEADER.unpack_from(frames, at)[1])


def whole_frames(
    buffer: memoryview, limit: int, compiled: ModuleType | None = native
) -> tuple[int, int]:
    """Return how many whole frames of a feed stand at the buffer's beginning, and where they end.

    They have payloads of at most `limit` bytes.
    """
    if compiled is not None:
        found: tuple[int, int] = compiled.whole(buffer, limit)
        return found
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
        self._compiled = compiled
        self._chunks: list[bytes | bytearray | memoryview] = []
        """What is held back. Each byte is copied once, when its frame is whole."""
        self._size = 0
        self._needed = HEADER_BYTES
        """Bytes of the unfinished frame, or of its header while that is cut."""

    @property
    def pending(self) -> int:
        """Bytes of the unfinished frame held back."""
        return self._size

    def receive(self, chunk: bytes | memoryview) -> None:
        """Store `chunk`; parses nothing. What a memoryview shows may change once `take` was called."""
        chunks = self._chunks
        if not chunks or len(chunk) >= _CHUNK_BYTES:
            chunks.append(chunk)
        elif isinstance(chunks[-1], bytearray):
            chunks[-1] += chunk
        else:
            chunks.append(bytearray(chunk))
        self._size += len(chunk)

    def take(self) -> tuple[int, bytes]:
        """Return how many whole frames there are, and their bytes, and forget them.

        Call it until it gives 0: damage is told only after the good frames before it were taken.

        Raises:
            FrameError: when the next frame's header is damaged. The header stays, so a further
                call raises again.
        """
        if self._size < self._needed:
            # A large frame arrives in hundreds of reads: look again only when it can be whole.
            self._keep()
            return 0, b""
        *begun, last = self._chunks
        at = self._needed - (self._size - len(last))
        if not begun or at < 0 or self._needed == HEADER_BYTES:
            begun, last, at = [], b"".join(self._chunks) if begun else last, 0
        # The frame that was begun ends at `at`; others may follow.
        count, end = whole_frames(memoryview(last)[at:], self._max_payload, self._compiled)
        count, at = count + bool(begun), at + end
        try:
            self._needed = self._next(last, at, is_first=not count)
        finally:
            if not count:
                self._chunks = [last]
                self._keep()
        if not count:
            return 0, b""
        if begun or at < len(last):
            taken = b"".join((*begun, memoryview(last)[:at]))
        else:
            taken = bytes(last)
        self._chunks = [last[at:]] if at < len(last) else []
        self._size = len(last) - at
        self._keep()
        return count, taken

    def _keep(self) -> None:
        if self._chunks and isinstance(self._chunks[-1], memoryview):
            self._chunks[-1] = bytes(self._chunks[-1])

    def _next(self, buffer: bytes | bytearray | memoryview, at: int, *, is_first: bool) -> int:
        """Return how many bytes the unfinished frame at `at` has, or its header where that is cut.

        Raises:
            FrameError: its header is damaged, and no good frames are to be taken first.
        """
        if len(buffer) - at < HEADER_BYTES:
            return HEADER_BYTES
        version, length = _HEADER.unpack_from(buffer, at)
        if version == VERSION and 0 <= length <= self._max_payload:
            return HEADER_BYTES + int(length)
        if is_first:
            raise self._damaged(version, length, bytes(buffer[:SAMPLE_BYTES]))
        return HEADER_BYTES

    def _damaged(self, version: int, length: int, sample: bytes) -> FrameError:
        if version != VERSION:
            return FrameError(
                "frame-version", f"frame begins with byte {version}, expected {VERSION}", sample
            )
        return FrameError(
            "frame-length", f"frame length {length} is outside 0..{self._max_payload}", sample
        )
