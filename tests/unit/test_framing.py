"""`core.framing`: the byte stream of TCP into whole frames."""

import struct

import pytest

from bridge.core.framing import HEADER_BYTES, SAMPLE_BYTES, FrameDecoder, frame, split_frames
from bridge.errors import FrameError

LIMIT = 1000


def decoder_with(data: bytes) -> FrameDecoder:
    decoder = FrameDecoder(max_payload=LIMIT)
    decoder.receive(data)
    return decoder


def test_a_frame_is_the_version_the_length_little_endian_and_the_payload() -> None:
    assert frame(b"abc") == b"\x01\x03\x00\x00\x00abc"


def test_whole_frames_leave_as_they_came_and_the_rest_is_kept() -> None:
    whole = frame(b"one") + frame(b"") + frame(b"three")
    decoder = decoder_with(whole + frame(b"four")[:-1])
    assert decoder.take() == (3, whole)
    assert decoder.take() == (0, b"")
    assert decoder.pending == len(frame(b"four")) - 1
    decoder.receive(b"r")
    assert decoder.take() == (1, frame(b"four"))
    assert decoder.pending == 0


def test_frames_split_into_first_byte_and_payload() -> None:
    frames = frame(b"feed") + frame(b"", 2) + frame(b"own", 3)
    assert list(split_frames(frames)) == [(1, b"feed"), (2, b""), (3, b"own")]
    assert list(split_frames(b"")) == []


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"\x00\x01\x00\x00\x00", "frame-version"),
        (b"\x02\x01\x00\x00\x00", "frame-version"),
        (b"GET /", "frame-version"),
        (struct.pack("<Bi", 1, -1), "frame-length"),
        (struct.pack("<Bi", 1, -(2**31)), "frame-length"),
        (struct.pack("<Bi", 1, LIMIT + 1), "frame-length"),
        (struct.pack("<Bi", 1, 2**31 - 1), "frame-length"),
        (struct.pack(">Bi", 1, 3), "frame-length"),
    ],
)
def test_a_damaged_header_is_told_after_the_good_frames_and_again(
    header: bytes, reason: str
) -> None:
    good = frame(b"good")
    decoder = decoder_with(good + header + bytes(500))
    assert decoder.take() == (1, good)
    for _ in range(2):
        with pytest.raises(FrameError) as caught:
            decoder.take()
        assert caught.value.reason == reason
        assert caught.value.sample == (header + bytes(500))[:SAMPLE_BYTES]


def test_the_largest_payload_allowed_is_taken() -> None:
    largest = frame(bytes(LIMIT))
    assert decoder_with(largest).take() == (1, largest)


def test_a_header_that_is_not_whole_is_waited_for() -> None:
    decoder = FrameDecoder(max_payload=LIMIT)
    for byte in frame(b"")[: HEADER_BYTES - 1]:
        decoder.receive(bytes([byte]))
        assert decoder.take() == (0, b"")
    decoder.receive(b"\x00")
    assert decoder.take() == (1, frame(b""))
