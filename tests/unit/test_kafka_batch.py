"""Batches as Kafka's readers take them; that brokers do is shown in tests/contract."""

from __future__ import annotations

import random

import cramjam
import pytest

from bridge.sinks.kafka_batch import HEADER_BYTES, WrittenBatch

_FRAME_START = b"\x04\x22\x4d\x18"
_FLAGS = 0x60
"""Of a frame of version 1 with independent blocks, without checksums, size or dictionary."""

_IDS = ((65_536, 4), (262_144, 5), (1_048_576, 6))
"""Sizes of blocks, and how a frame's header tells them."""


def _records(data: bytes, compression: str) -> bytes:
    return WrittenBatch(data, 1, 0, compression).parts(1, 2, 3)[1]


@pytest.mark.parametrize(
    "size", [1_000, *(n + more for n, _ in _IDS for more in (0, 1)), 9_000_000]
)
def test_a_frame_holds_what_was_compressed(size: int) -> None:
    data = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    frame = _records(data, "lz4")
    assert frame.startswith(_FRAME_START)
    assert frame[4] == _FLAGS
    assert bytes(cramjam.lz4.decompress(frame)) == data
    assert len(frame) < len(data)


@pytest.mark.parametrize(("size", "number"), _IDS)
def test_the_block_is_no_larger_than_it_must_be(size: int, number: int) -> None:
    """A reader needs as much memory as the header says."""
    assert _records(bytes(size), "lz4")[5] == number << 4
    assert _records(bytes(size + 1), "lz4")[5] == min(number + 1, _IDS[-1][1]) << 4


@pytest.mark.parametrize("compression", ["gzip", "lz4", "zstd"])
def test_what_does_not_shrink_is_sent_as_it_is(compression: str) -> None:
    noise = random.Random(1).randbytes(100_000)
    batch = WrittenBatch(noise, 1, 0, compression)
    assert batch.size == HEADER_BYTES + len(noise)
    header, records = batch.parts(1, 2, 3)
    assert records is noise
    assert header[21:23] == b"\0\0"
