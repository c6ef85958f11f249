"""A batch of records that is written already: compressed, and numbered when it is sent."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable, Mapping
from typing import Any

import cramjam
import google_crc32c

__all__ = ["HEADER_BYTES", "WrittenBatch"]

_START = struct.Struct(">qiibI")
"""Base offset, length of what follows, leader's epoch, version, checksum."""

_REST = struct.Struct(">hiqqqhii")
"""Attributes, last offset, first and last time, producer's id and epoch, sequence, records."""

HEADER_BYTES = _START.size + _REST.size
_COUNTED = HEADER_BYTES - 12
"""Bytes of the header that the length counts: all behind itself."""


_LZ4_START = {
    64 * 1024: b"\x04\x22\x4d\x18\x60\x40\x82",
    256 * 1024: b"\x04\x22\x4d\x18\x60\x50\xfb",
    1024 * 1024: b"\x04\x22\x4d\x18\x60\x60\x51",
}
"""By the size of the largest block, how an LZ4 frame begins that has independent blocks (Kafka reads no
others, KIP-57) and no checksums but that of these bytes: magic, flags, size, checksum."""

_LZ4_BLOCK = struct.Struct("<I")
_LZ4_RAW = 0x80000000
"""In a block's size: it is not compressed."""


def _lz4(data: bytes) -> bytes:
    """Return `data` as an LZ4 frame, of one block if it is not large; or as it is, if that is smaller.

    The library's own frames have blocks of 64 KB only. Those of hashes as hex digits take five times as
    long, and are a fifteenth smaller (docs/decisions/0012).
    """
    room = next((size for size in _LZ4_START if len(data) <= size), max(_LZ4_START))
    parts: list[Any] = [_LZ4_START[room]]
    for at in range(0, len(data), room):
        raw = data[at : at + room]
        block = cramjam.lz4.compress_block(raw, store_size=False)
        if len(block) < len(raw):
            parts += _LZ4_BLOCK.pack(len(block)), block
        else:
            parts += _LZ4_BLOCK.pack(len(raw) | _LZ4_RAW), raw
    parts.append(_LZ4_BLOCK.pack(0))
    # What does not become smaller is not put together, for it is sent as it is.
    return b"".join(parts) if sum(map(len, parts)) < len(data) else data


_CODECS: Mapping[str, tuple[int, Callable[[bytes], bytes]]] = {
    "gzip": (1, lambda data: gzip.compress(data, 1)),
    "lz4": (3, _lz4),
    "zstd": (4, lambda data: bytes(cramjam.zstd.compress(data, level=1))),
}
"""By the setting's word: the number in the attributes, and the codec."""


class WrittenBatch:
    """`count` records that were written at `at` (milliseconds since 1970)."""

    def __init__(self, records: bytes, count: int, at: int, compression: str) -> None:
        self._codec = 0
        if compression in _CODECS:
            number, encode = _CODECS[compression]
            smaller = encode(records)
            if len(smaller) < len(records):
                self._codec, records = number, smaller
        self._records = records
        self._at = at
        self.count = count

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return HEADER_BYTES + len(self._records)

    def parts(self, producer: int, epoch: int, sequence: int) -> tuple[bytes, bytes]:
        """Return header and records, from a producer with that id; `sequence` is the first's number."""
        times, last = (self._at, self._at), self.count - 1
        rest = _REST.pack(self._codec, last, *times, producer, epoch, sequence, self.count)
        checksum = google_crc32c.extend(google_crc32c.value(rest), self._records)
        start = _START.pack(0, _COUNTED + len(self._records), -1, 2, checksum)
        return start + rest, self._records
