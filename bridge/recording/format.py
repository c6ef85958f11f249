"""The recording's bytes: records in zstd blocks, each checked before it is believed.

A recording is also an ordinary zstd file: what is not compressed stands in skippable frames, so
that `zstd -dc` gives the plain records. Integers are little-endian.

    header      50 2A 4D 18, 8, "FACTREC", version 1
    block       51 2A 4D 18, 12, stored size, plain size, CRC-32 of both and of what is stored;
                then as many bytes of one zstd frame: whole records
    end         52 2A 4D 18, 8, number of records (8 bytes)

    record      time ns 8, connection 4, transport 1, what 1, size 4, data

Pure: the caller owns the file. Whatever the bytes and however they are cut, the only exception
that leaves the decoder is `RecordingDamaged`, and no record is given that was not written so.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from cramjam import DecompressionError, zstd

from bridge.errors import RecordingDamaged

__all__ = [
    "BLOCK_BYTES",
    "MAX_DATA",
    "MAX_PLAIN",
    "Decoder",
    "Encoder",
    "Record",
    "Transport",
    "What",
]

BLOCK_BYTES = 256 * 1024
"""Plain bytes at which a block is closed."""
MAX_DATA = 1024 * 1024
"""Most bytes of one record; no read of a socket gives as many."""

_LEVEL = 3
_HEADER = b"\x50\x2a\x4d\x18\x08\x00\x00\x00FACTREC"
_VERSION = 1
_HEADER_BYTES = len(_HEADER) + 1
_BLOCK = struct.Struct("<IIIII")
_BLOCK_TAG = (0x184D2A51, 12)
_END = struct.Struct("<IIQ")
_END_TAG = (0x184D2A52, 8)
_TAG = struct.Struct("<II")
_RECORD = struct.Struct("<QIBBI")
MAX_PLAIN = BLOCK_BYTES + _RECORD.size + MAX_DATA
"""Most plain bytes of a block: what bounds a reader's memory."""
_MAX_STORED = MAX_PLAIN + MAX_PLAIN // 128 + 1024


class Transport(IntEnum):
    """How it came."""

    TCP = 1
    UDP = 2


class What(IntEnum):
    """What happened."""

    OPEN = 1
    """A connection, or the first datagram of a UDP peer; the data is its address, as text."""
    READ = 2
    """Bytes of a connection, as one read gave them."""
    DATAGRAM = 3
    CLOSE = 4
    """The peer closed the connection."""
    RESET = 5
    """The connection broke."""
    STOPPED = 6
    """The recorder ended it."""


class Record(NamedTuple):
    """One happening of one connection."""

    time_ns: int
    """Since 1970; within one recording it never goes back."""
    connection: int
    """Number within the recording, of either transport; never used again."""
    transport: Transport
    what: What
    data: bytes = b""


class Encoder:
    """Turns records into the file's bytes; what it returns is to be appended at once."""

    def __init__(self) -> None:
        self._block = bytearray()
        self._records = 0

    def begin(self) -> bytes:
        """Return the file's first bytes."""
        return _HEADER + bytes([_VERSION])

    def add(self, record: Record) -> bytes:
        """Take `record`, of at most `MAX_DATA` bytes; return a block if it became full."""
        time_ns, connection, transport, what, data = record
        if len(data) > MAX_DATA:
            raise ValueError(f"{len(data)} bytes in one record, more than {MAX_DATA}")
        self._block += _RECORD.pack(time_ns, connection, transport, what, len(data))
        self._block += data
        self._records += 1
        return self.flush() if len(self._block) >= BLOCK_BYTES else b""

    def flush(self) -> bytes:
        """Return a block of what was added since the last one."""
        if not self._block:
            return b""
        plain, self._block = self._block, bytearray()
        stored = bytes(zstd.compress(plain, level=_LEVEL))
        sizes = _TAG.pack(len(stored), len(plain))
        return _TAG.pack(*_BLOCK_TAG) + sizes + _check(sizes, stored) + stored

    def end(self) -> bytes:
        """Return the last bytes: a file without them was not ended in order."""
        return self.flush() + _END.pack(*_END_TAG, self._records)


class Decoder:
    """Turns chunks of a file, however cut, into records. It holds one block at most."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0
        self._records = 0
        self._ended = False

    def receive(self, chunk: bytes) -> None:
        """Store `chunk`; parses nothing."""
        self._buffer += chunk

    def records(self) -> Iterator[Record]:
        """Yield the records of every complete block.

        Raises:
            RecordingDamaged: at the damage, after the records before it; a further call raises
                again.
        """
        if not self._at and not self._begin():
            return
        while (block := self._next()) is not None:
            yield from block

    def finish(self) -> None:
        """No more bytes come.

        Raises:
            RecordingDamaged: the file is cut short, or was never ended.
        """
        if not self._ended:
            kept = len(self._buffer)
            raise self._damaged(f"the recording was not ended; {kept} bytes of a block follow")

    def _begin(self) -> bool:
        start = bytes(self._buffer[:_HEADER_BYTES])
        if not _HEADER.startswith(start[: len(_HEADER)]):
            raise self._damaged("this is no recording")
        if len(start) < _HEADER_BYTES:
            return False
        if start[-1] != _VERSION:
            raise self._damaged(f"format {start[-1]}, this version reads {_VERSION}")
        self._take(_HEADER_BYTES)
        return True

    def _next(self) -> list[Record] | None:
        buffer = self._buffer
        if self._ended and buffer:
            raise self._damaged("bytes after the end")
        if len(buffer) < _TAG.size:
            return None
        tag = _TAG.unpack_from(buffer)
        if tag == _END_TAG:
            return self._end()
        if tag != _BLOCK_TAG:
            raise self._damaged("no block begins here")
        if len(buffer) < _BLOCK.size:
            return None
        _, _, stored, plain, check = _BLOCK.unpack_from(buffer)
        if not (0 < stored <= _MAX_STORED and 0 < plain <= MAX_PLAIN):
            raise self._damaged(f"a block of {stored} bytes that are to become {plain}")
        size = _BLOCK.size + stored
        if len(buffer) < size:
            return None
        body = bytes(memoryview(buffer)[_BLOCK.size : size])
        if _check(bytes(buffer[8:16]), body) != struct.pack("<I", check):
            raise self._damaged("the block's checksum is wrong")
        records = self._parse(self._decompressed(body, plain))
        self._take(size)
        self._records += len(records)
        return records

    def _end(self) -> list[Record] | None:
        if len(self._buffer) < _END.size:
            return None
        count = _END.unpack_from(self._buffer)[2]
        if count != self._records:
            raise self._damaged(f"{count} records were written, {self._records} are here")
        self._take(_END.size)
        self._ended = True
        return []

    def _decompressed(self, stored: bytes, size: int) -> bytearray:
        # The room is fixed before: a bomb finds no more of it than one block has.
        plain = bytearray(size)
        try:
            given = zstd.decompress_into(stored, plain)
        except DecompressionError as error:
            raise self._damaged(f"the block cannot be decompressed: {error}") from error
        if given != size:
            raise self._damaged(f"the block has {given} bytes, {size} were announced")
        return plain

    def _parse(self, plain: bytearray) -> list[Record]:
        found = []
        at, size = 0, len(plain)
        try:
            while at < size:
                time_ns, connection, transport, what, length = _RECORD.unpack_from(plain, at)
                at += _RECORD.size + length
                data = bytes(plain[at - length : at])
                found.append(Record(time_ns, connection, Transport(transport), What(what), data))
        except (struct.error, ValueError) as error:
            raise self._damaged(f"the block holds no record: {error}") from error
        if at != size or any(len(record.data) > MAX_DATA for record in found):
            raise self._damaged("a record is larger than its block or than any can be")
        return found

    def _take(self, size: int) -> None:
        del self._buffer[:size]
        self._at += size

    def _damaged(self, sentence: str) -> RecordingDamaged:
        return RecordingDamaged(self._at, sentence)


def _check(sizes: bytes, stored: bytes) -> bytes:
    return struct.pack("<I", zlib.crc32(stored, zlib.crc32(sizes)))
