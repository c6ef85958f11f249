"""A batch of records that is written already: compressed, and numbered when it is sent."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable, Mapping

import cramjam
import google_crc32c
import lz4.frame

__all__ = ["HEADER_BYTES", "WrittenBatch"]

_START = struct.Struct(">qiibI")
"""Base offset, length of what follows, leader's epoch, version, checksum."""

_REST = struct.Struct(">hiqqqhii")
"""Attributes, last offset, first and last time, producer's id and epoch, sequence, records."""

HEADER_BYTES = _START.size + _REST.size
_COUNTED = HEADER_BYTES - 12
"""Bytes of the header that the length counts: all behind itself."""

_LZ4 = {
    "compression_level": -3,
    "block_size": lz4.frame.BLOCKSIZE_MAX1MB,
    "block_linked": False,
    "store_size": False,
}
"""Kafka reads no frames but those of independent blocks, and wants no checksums of what it holds (KIP-57).
What the level and the size are worth: docs/decisions/0012."""

_CODECS: Mapping[str, tuple[int, Callable[[bytes], bytes]]] = {
    "gzip": (1, lambda data: gzip.compress(data, 1)),
    "lz4": (3, lambda data: lz4.frame.compress(data, **_LZ4)),
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
