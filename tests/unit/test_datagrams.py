"""`core.datagrams`: two or three datagrams into one frame."""

import struct

import pytest

from bridge.core.datagrams import DatagramAssembler
from bridge.core.framing import frame, split_frames
from bridge.errors import FrameError
from tests.support.events import small_capture

LIMIT = 100_000
VERSION = b"\x01"


def parts(payload: bytes) -> list[bytes]:
    """As the node's sender cuts an event."""
    rest = struct.pack("<i", len(payload)) + payload
    return [VERSION, *(part for part in (rest[:4096], rest[4096:]) if part)]


def feed(assembler: DatagramAssembler, datagrams: list[bytes]) -> list[bytes]:
    """The payloads and, in their places, the reasons of refusals."""
    found = []
    for datagram in datagrams:
        try:
            whole = assembler.receive(datagram)
        except FrameError as error:
            found.append(error.reason.encode())
        else:
            found += [payload for _, payload in split_frames(whole or b"")]
    return found


@pytest.fixture
def assembler() -> DatagramAssembler:
    return DatagramAssembler(max_payload=LIMIT)


@pytest.mark.parametrize("size", [0, 1, 4091, 4092, 4093, 65_000])
def test_an_event_of_any_size_is_put_together(assembler: DatagramAssembler, size: int) -> None:
    payload = b"p" * size
    datagrams = parts(payload)
    for datagram in datagrams[:-1]:
        assert assembler.receive(datagram) is None
    assert assembler.receive(datagrams[-1]) == frame(payload)
    assert (assembler.pending, assembler.abandoned) == (0, 0)


@pytest.mark.parametrize(
    "name", ["allfields-udp-json", "allfields-udp-protobuf", "udp-protobuf-once"]
)
def test_recorded_datagrams_give_the_recorded_events(name: str) -> None:
    capture = small_capture(name)
    peers: dict[int, DatagramAssembler] = {}
    found = []
    for port, datagram in capture.datagrams():
        peer = peers.setdefault(port, DatagramAssembler(max_payload=LIMIT))
        found += feed(peer, [datagram])
    assert found == capture.payloads()
    assert sum(peer.abandoned for peer in peers.values()) == 0


LARGE = b"x" * 9000
NEXT = parts(b"next")


@pytest.mark.parametrize(
    ("datagrams", "found", "abandoned"),
    [
        pytest.param([b"junk"], [b"datagram-stray"], 0, id="no version byte"),
        pytest.param([b""], [b"datagram-stray"], 0, id="empty datagram"),
        pytest.param([VERSION, *NEXT], [b"next"], 1, id="version byte twice"),
        pytest.param(parts(LARGE)[:2] + NEXT, [b"next"], 1, id="rest lost"),
        pytest.param(
            [VERSION, parts(LARGE)[2], *NEXT], [b"frame-length", b"next"], None, id="middle lost"
        ),
        pytest.param(
            parts(LARGE)[1:] + NEXT, [b"datagram-stray"] * 2 + [b"next"], 0, id="no begin"
        ),
        pytest.param(
            [*parts(LARGE)[:2], b"short", *NEXT],
            [b"datagram-size", b"next"],
            1,
            id="rest too short",
        ),
        pytest.param(
            [*parts(LARGE)[:2], b"x" * 5000, *NEXT],
            [b"datagram-size", b"next"],
            1,
            id="rest too long",
        ),
        pytest.param(
            [VERSION, struct.pack("<i", 10) + bytes(4092), *NEXT],
            [b"datagram-size", b"next"],
            1,
            id="first part too long",
        ),
        pytest.param(
            [VERSION, struct.pack("<i", 5) + b"four", *NEXT],
            [b"datagram-size", b"next"],
            1,
            id="first part too short",
        ),
        pytest.param(
            [VERSION, struct.pack("<i", LIMIT + 1), *NEXT],
            [b"frame-length", b"next"],
            None,
            id="too large",
        ),
        pytest.param(
            [VERSION, struct.pack("<i", -1), *NEXT], [b"frame-length", b"next"], None, id="negative"
        ),
        pytest.param([VERSION, b"abc", *NEXT], [b"frame-length", b"next"], None, id="no length"),
    ],
)
def test_what_is_lost_or_foreign_never_spoils_the_next_event(
    assembler: DatagramAssembler, datagrams: list[bytes], found: list[bytes], abandoned: int | None
) -> None:
    assert feed(assembler, datagrams) == found
    if abandoned is not None:
        assert assembler.abandoned == abandoned


def test_a_single_byte_may_be_the_rest_of_an_event(assembler: DatagramAssembler) -> None:
    payload = b"x" * 4092 + VERSION
    assert feed(assembler, parts(payload)) == [payload]


def test_an_unfinished_event_is_given_up_once(assembler: DatagramAssembler) -> None:
    feed(assembler, parts(LARGE)[:2])
    assert assembler.pending == 4096
    assembler.abandon()
    assembler.abandon()
    assert (assembler.pending, assembler.abandoned) == (0, 1)
