"""Datagrams, whatever they are and whichever are lost."""

import struct

from hypothesis import given, strategies as st

from bridge.core.datagrams import DatagramAssembler
from bridge.core.framing import frame, split_frames
from bridge.errors import FrameError

LIMIT = 20_000
REASONS = {"datagram-stray", "datagram-size", "frame-length"}


def cut(payload: bytes) -> list[bytes]:
    rest = struct.pack("<i", len(payload)) + payload
    return [b"\x01", *(part for part in (rest[:4096], rest[4096:]) if part)]


sizes = st.one_of(st.integers(0, 30), st.integers(4080, 4110), st.integers(8000, LIMIT))
payloads = st.builds(lambda size, fill: bytes([fill]) * size, sizes, st.integers(0, 255))
datagrams = st.one_of(
    st.just(b"\x01"),
    st.binary(max_size=12),
    payloads.map(lambda payload: cut(payload)[1]),
    payloads.map(lambda payload: cut(payload)[-1]),
)


def receive(assembler: DatagramAssembler, datagram: bytes) -> list[bytes]:
    try:
        whole = assembler.receive(datagram)
    except FrameError as error:
        assert error.reason in REASONS
        assert error.sample == datagram[:64]
        return []
    if whole is None:
        return []
    ((_, payload),) = split_frames(whole)
    assert whole == frame(payload)
    return [payload]


@given(st.lists(payloads, max_size=5))
def test_what_is_not_lost_is_put_together_in_order(sent: list[bytes]) -> None:
    assembler = DatagramAssembler(max_payload=LIMIT)
    found = [got for payload in sent for part in cut(payload) for got in receive(assembler, part)]
    assert found == sent
    assert (assembler.abandoned, assembler.pending) == (0, 0)


@given(st.lists(datagrams, max_size=20))
def test_noise_gives_frames_or_a_frame_error_and_nothing_else(noise: list[bytes]) -> None:
    assembler, given_up = DatagramAssembler(max_payload=LIMIT), 0
    for datagram in noise:
        for payload in receive(assembler, datagram):
            assert len(payload) <= LIMIT
        assert assembler.pending <= 4096
        assert assembler.abandoned >= given_up
        given_up = assembler.abandoned


@given(st.lists(payloads, min_size=1, max_size=6), st.data())
def test_events_that_come_whole_after_a_loss_are_put_together(
    sent: list[bytes], data: st.DataObject
) -> None:
    lost = data.draw(st.sets(st.integers(0, len(sent) - 1)))
    assembler, found, whole = DatagramAssembler(max_payload=LIMIT), [], []
    for place, payload in enumerate(sent):
        parts = cut(payload)
        if place in lost:
            del parts[data.draw(st.integers(0, len(parts) - 1))]
        else:
            whole.append((place, payload))
        found += [(place, got) for part in parts for got in receive(assembler, part)]
    for place, payload in whole:
        # Where one byte is missing, the next event's version byte is taken for it: no number on
        # the datagrams tells them apart.
        if place - 1 not in lost or len(sent[place - 1]) != 4093:
            assert (place, payload) in found


@given(st.lists(datagrams, max_size=10), payloads)
def test_after_giving_up_the_next_event_is_put_together(noise: list[bytes], sent: bytes) -> None:
    assembler = DatagramAssembler(max_payload=LIMIT)
    for datagram in noise:
        receive(assembler, datagram)
    assembler.abandon()
    assert [got for part in cut(sent) for got in receive(assembler, part)] == [sent]
