"""LZ4 frames as Kafka's readers take them; that brokers do is shown in tests/contract."""

from __future__ import annotations

import random

import cramjam
import pytest

from bridge.sinks.kafka_batch import _LZ4_START, _lz4

_SIZES = [size + more for size in _LZ4_START for more in (-1, 0, 1)]


@pytest.mark.parametrize("size", [1, 1_000, *_SIZES, 9_000_000])
def test_a_frame_holds_what_was_compressed(size: int) -> None:
    data = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    frame = _lz4(data)
    assert bytes(cramjam.lz4.decompress(frame)) == data if size > 1 else frame == data
    assert len(frame) < len(data) or size == 1


def test_the_block_is_no_larger_than_it_must_be() -> None:
    for size, start in _LZ4_START.items():
        assert _lz4(bytes(size)).startswith(start)
    assert _lz4(bytes(max(_LZ4_START) + 1)).startswith(_LZ4_START[max(_LZ4_START)])


def test_what_does_not_shrink_stays_as_it_is() -> None:
    noise = random.Random(1).randbytes(100_000)
    assert _lz4(noise) is noise


def test_one_block_of_several_may_be_left_as_it_is() -> None:
    room = max(_LZ4_START)
    data = random.Random(2).randbytes(room) + bytes(room)
    frame = _lz4(data)
    assert len(frame) < len(data)
    assert bytes(cramjam.lz4.decompress(frame)) == data
