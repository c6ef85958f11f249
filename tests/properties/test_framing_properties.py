"""Framing, however the bytes are cut and whatever they are."""

import random
from itertools import cycle
from types import ModuleType

import pytest
from hypothesis import given, strategies as st

from bridge.core.framing import HEADER_BYTES, FrameDecoder, frame, split_frames
from bridge.core.native import native
from bridge.errors import FrameError
from tests.support.captures import Capture
from tests.support.events import SMALL, small_capture

LIMIT = 32 * 1024 * 1024
TCP = [name for name in SMALL if not small_capture(name).is_udp]


def payloads_of(decoder: FrameDecoder, chunk: bytes) -> list[bytes]:
    """What a receiver gets that reads into one buffer time and again."""
    buffer = bytearray(chunk)
    decoder.receive(memoryview(buffer))
    found: list[bytes] = []
    while True:
        try:
            count, frames = decoder.take()
        finally:
            buffer[:] = b"\xee" * len(buffer)
        if not count:
            return found
        payloads = [payload for _, payload in split_frames(frames)]
        assert len(payloads) == count
        found += payloads


def decoded(stream: bytes, cuts: list[int]) -> tuple[list[bytes], int]:
    """The payloads of a stream that arrives in pieces, and how many bytes were left over."""
    decoder, found = FrameDecoder(max_payload=LIMIT), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += payloads_of(decoder, stream[start:end])
    return found, decoder.pending


def told(capture: Capture) -> list[int]:
    return [event["len"] for event in capture.events()]


@pytest.mark.parametrize("name", TCP)
@given(seed=st.integers(0, 2**32), pieces=st.integers(1, 400))
def test_any_cut_of_recorded_bytes_gives_the_recorded_payloads(
    name: str, seed: int, pieces: int
) -> None:
    capture, draw = small_capture(name), random.Random(seed)
    found = []
    for stream in capture.streams():
        cuts = sorted(draw.randrange(len(stream) + 1) for _ in range(pieces))
        payloads, left = decoded(stream, cuts)
        assert left == 0
        found += payloads
    assert found == capture.payloads()
    assert [len(payload) for payload in found] == told(capture)


@pytest.mark.parametrize("name", TCP)
def test_byte_by_byte_gives_the_recorded_payloads(name: str) -> None:
    capture, found = small_capture(name), []
    for stream in capture.streams():
        payloads, left = decoded(stream, list(range(1, len(stream))))
        assert left == 0
        found += payloads
    assert found == capture.payloads()


def test_a_stream_cut_short_leaves_its_last_frame_out() -> None:
    (stream,) = small_capture("allfields-tcp-protobuf").streams()
    whole, _ = decoded(stream, [])
    for end in range(len(stream)):
        found, left = decoded(stream[:end], [])
        assert found == whole[: len(found)]
        assert left == end - sum(HEADER_BYTES + len(payload) for payload in found)


chunks = st.lists(
    st.one_of(st.binary(max_size=40), st.binary(max_size=20).map(frame), st.just(b"\x01")),
    max_size=10,
)


@given(chunks)
def test_noise_gives_frames_or_a_frame_error_and_nothing_else(noise: list[bytes]) -> None:
    decoder, taken, stream = FrameDecoder(max_payload=20), [], b"".join(noise)
    try:
        for chunk in noise:
            taken += payloads_of(decoder, chunk)
    except FrameError as error:
        assert error.reason in {"frame-version", "frame-length"}
        at = sum(HEADER_BYTES + len(payload) for payload in taken)
        rest = stream[at:]
        # The damage is where it is said to be, and what came before it was given.
        assert rest.startswith(error.sample)
        assert rest[0] != 1 or not 0 <= int.from_bytes(rest[1:5], "little", signed=True) <= 20
    assert stream.startswith(b"".join(map(frame, taken)))


@given(chunks)
def test_what_is_held_back_is_less_than_one_frame_of_the_limit(noise: list[bytes]) -> None:
    decoder = FrameDecoder(max_payload=20)
    for chunk in noise:
        try:
            payloads_of(decoder, chunk)
        except FrameError:
            return
        assert decoder.pending < HEADER_BYTES + 20


@given(
    sizes=st.lists(st.sampled_from([0, 1, 90, 5_000, 9_000]), min_size=1),
    cuts=st.lists(st.sampled_from([1, 4, 5, 700, 4_096, 5_005, 20_000]), min_size=1),
    rarely=st.integers(1, 4),
    compiled=st.sampled_from([native, None]),
)
def test_chunks_may_gather_before_they_are_taken(
    sizes: list[int], cuts: list[int], rarely: int, compiled: ModuleType | None
) -> None:
    stream = b"".join(frame(bytes([number & 0xFF]) * size) for number, size in enumerate(sizes))
    decoder, found, at = FrameDecoder(max_payload=LIMIT, compiled=compiled), b"", 0
    for turn, size in enumerate(cycle(cuts), 1):
        decoder.receive(stream[at : at + size])
        at += size
        if turn % rarely == 0 or at >= len(stream):
            found += decoder.take()[1]
        if at >= len(stream):
            break
    assert decoder.take() == (0, b"")
    assert (found, decoder.pending) == (stream, 0)
