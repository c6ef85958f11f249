"""`bridge.recording`: recording what arrives, playing it back, and faults on the way."""

from __future__ import annotations

import asyncio
import io
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop
from rich.console import Console

from bridge.core.framing import frame, split_frames
from bridge.errors import (
    PortInUse,
    ReceiverUnavailable,
    RecordingDamaged,
    RecordingUnwritable,
    UsageError,
)
from bridge.recording import (
    Faults,
    FileReader,
    FileWriter,
    Player,
    Record,
    Recorder,
    Transport,
    What,
    open_recorder,
    open_recording,
)
from bridge.recording.faults import Fault, FaultPlan
from bridge.recording.frames import datagrams
from bridge.recording.line import Address
from bridge.recording.play import AS_FAST_AS_POSSIBLE
from bridge.recording.record import Recorded
from bridge.recording.shown import parse_speed, record_shown
from bridge.settings import FeedSettings
from tests.support.captures import CAPTURES, Capture, find_capture, not_here
from tests.support.recordings import datagrams_of, encoded, files_grow_to, streams_of
from tests.support.waiting import until

TCP, UDP = Transport.TCP, Transport.UDP
FRAMES = [frame(bytes([number]) * (number * 40)) for number in range(100)]
ANY_PORT = FeedSettings(port=0)


@pytest.fixture(params=CAPTURES)
def capture(request: pytest.FixtureRequest) -> Capture:
    found = find_capture(request.param)
    if found is None:
        not_here(request.param)
    return found


class Listener(asyncio.Protocol):
    """What one connection gave, and how it ended."""

    def __init__(self, made: list[Listener]) -> None:
        made.append(self)
        self.data = b""
        self.ended: bool | None = None
        self.reset = False

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended, self.reset = True, exc is not None


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[Address, list[Listener]]]:
    made: list[Listener] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Listener(made), "127.0.0.1", 0)
    async with server:
        yield Address("127.0.0.1", server.sockets[0].getsockname()[1]), made
        await until(lambda: all(each.ended for each in made))


@asynccontextmanager
async def datagram_listener() -> AsyncIterator[tuple[Address, list[tuple[int, bytes]]]]:
    found: list[tuple[int, bytes]] = []

    class Datagrams(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            found.append((addr[1], data))

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Datagrams, ("127.0.0.1", 0))
    try:
        yield Address("127.0.0.1", transport.get_extra_info("sockname")[1]), found
    finally:
        transport.close()


def a_connection(frames: list[bytes], number: int = 1, end: What = What.CLOSE) -> list[Record]:
    middle = [Record(2, number, TCP, What.READ, data) for data in frames]
    return [Record(1, number, TCP, What.OPEN), *middle, Record(3, number, TCP, end)]


def fast(
    to: Address, transport: Transport | None = None, faults: str = "", seed: int = 1
) -> Player:
    return Player(
        to,
        speed=AS_FAST_AS_POSSIBLE,
        transport=transport,
        faults=Faults.parse(faults),
        seed=seed,
    )


async def test_a_folder_played_gives_the_same_bytes_per_connection(capture: Capture) -> None:
    if capture.is_udp:
        async with datagram_listener() as (to, found):
            played = await fast(to).play(open_recording(capture.folder))
            sent = list(capture.datagrams())
            await until(lambda: len(found) == len(sent))
        assert [data for _, data in found] == [data for _, data in sent]
        assert len({port for port, _ in found}) == len({port for port, _ in sent})
        assert played.bytes == sum(len(data) for _, data in sent)
        return
    async with listening() as (to, made):
        played = await fast(to).play(open_recording(capture.folder))
    assert [each.data for each in made] == capture.streams()
    assert played.bytes == sum(map(len, capture.streams()))


async def test_frames_over_udp_are_cut_as_the_node_cut_them() -> None:
    capture = find_capture("udp-protobuf-once")
    assert capture is not None
    recorded = [data for _, data in capture.datagrams()]
    stream = b"".join(recorded)
    frames = [frame(payload) for _, payload in split_frames(stream)]
    assert [piece for each in frames for piece in datagrams(each)] == recorded
    async with datagram_listener() as (to, found):
        await fast(to, UDP).play(a_connection([stream[:777], stream[777:]]))
        await until(lambda: len(found) == len(recorded))
    assert [data for _, data in found] == recorded
    async with listening() as (to, made):
        await fast(to, TCP).play(open_recording(capture.folder))
    assert [each.data for each in made] == [stream]


async def test_an_event_too_large_for_udp_leaves_its_stub_as_with_a_node() -> None:
    large = frame(bytes(80_000))
    async with datagram_listener() as (to, found):
        played = await fast(to, UDP).play(a_connection([large, frame(b"next")]))
        await until(lambda: len(found) == 4)
    assert [data for _, data in found] == [large[:1], large[1:4097], b"\x01", frame(b"next")[1:]]
    assert played.too_large == 1


async def test_bytes_that_are_no_frames_go_over_their_own_transport_only() -> None:
    records = a_connection([FRAMES[1] + FRAMES[2][:7]]) + a_connection([b"GET / HTTP"], 2)
    async with listening() as (to, made):
        played = await fast(to, faults="stall=0@100").play(records)
    assert [each.data for each in made] == [FRAMES[1] + FRAMES[2][:7], b"GET / HTTP"]
    assert (played.stalled, played.unframed) == (1, 0)
    async with datagram_listener() as (to, found):
        played = await fast(to, UDP).play(records)
        await until(lambda: len(found) == 2)
    assert played.unframed == 17


async def test_the_recorded_pace_is_kept_times_the_speed() -> None:
    records = [
        record._replace(time_ns=10**18 + number * 10**9)
        for number, record in enumerate(a_connection(FRAMES[:3]))
    ]
    loop = asyncio.get_running_loop()
    async with listening() as (to, _):
        began = loop.time()
        await Player(to, speed=20).play(records)
        assert 0.2 <= loop.time() - began < 1


async def test_recorded_and_played_it_is_the_same_again(tmp_path: Path) -> None:
    first, second = tmp_path / "first.rec", tmp_path / "second.rec"
    with FileWriter(first) as file:
        async with open_recorder(ANY_PORT, file) as recorder:
            left_open = await send(recorder)
    left_open.close()
    with FileWriter(second) as file:
        async with open_recorder(ANY_PORT, file) as recorder:
            await Player(Address("127.0.0.1", recorder.port)).play(open_recording(first))
            await until(lambda: recorder.recorded.bytes == 2 * sum(map(len, FRAMES)))
            await until(lambda: recorder.recorded.open == 1)
            assert recorder.recorded.frames == 2 * len(FRAMES)
    records = list(FileReader(first))
    again = list(FileReader(second))
    assert streams_of(records) == [b"".join(FRAMES[:50]), b"".join(FRAMES[50:]), b""]
    assert streams_of(again) == streams_of(records)
    assert datagrams_of(again) == datagrams_of(records) == pieces(FRAMES)
    assert ends(records) == [What.CLOSE, What.RESET, What.STOPPED, What.STOPPED]
    # What the recorder had stopped, the player closes: UDP shows no end at all.
    assert ends(again) == [What.CLOSE, What.RESET, What.CLOSE, What.STOPPED]
    assert [r.time_ns for r in records] == sorted(r.time_ns for r in records)
    opened = [record for record in records if record.what is What.OPEN]
    assert all(record.data.startswith(b"127.0.0.1:") for record in opened)


def ends(records: list[Record]) -> list[What]:
    """Return how each connection ended, those over TCP first."""
    last = {(record.transport, record.connection): record.what for record in records}
    return [last[key] for key in sorted(last)]


def pieces(frames: list[bytes]) -> list[bytes]:
    return [piece for each in frames for piece in datagrams(each)]


async def send(recorder: Recorder) -> socket.socket:
    """Send on three TCP connections (closed, reset, returned) and as a UDP peer."""
    address = ("127.0.0.1", recorder.port)
    made: list[socket.socket] = []
    for part in (FRAMES[:50], FRAMES[50:], []):
        made.append(socket.create_connection(address))
        made[-1].sendall(b"".join(part))
        await until(lambda: recorder.recorded.peers == len(made))
    await until(lambda: recorder.recorded.frames == len(FRAMES))
    made[0].close()
    made[1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    made[1].close()
    await until(lambda: recorder.recorded.open == 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.connect(address)
        for piece in pieces(FRAMES):
            peer.send(piece)
        await until(lambda: recorder.recorded.frames == 2 * len(FRAMES))
    return made[2]


async def test_a_peer_that_is_not_allowed_is_counted_and_not_recorded(tmp_path: Path) -> None:
    path = tmp_path / "feed.rec"
    with FileWriter(path) as file:
        settings = ANY_PORT.model_copy(update={"allow": ("192.0.2.0/24",)})
        async with open_recorder(settings, file) as recorder:
            socket.create_connection(("127.0.0.1", recorder.port)).close()
            await until(lambda: recorder.recorded.refused == 1)
    assert list(FileReader(path)) == []


async def test_a_recorder_whose_disk_is_full_says_so_and_goes_no_further(tmp_path: Path) -> None:
    path = tmp_path / "feed.rec"
    with FileWriter(path) as file:
        async with open_recorder(ANY_PORT, file) as recorder:
            with (
                files_grow_to(file.size),
                socket.create_connection(("127.0.0.1", recorder.port)) as peer,
            ):
                peer.sendall(b"".join(FRAMES))
                with pytest.raises(RecordingUnwritable, match="readable"):
                    await asyncio.wait_for(recorder.failed, 5)
    with pytest.raises(RecordingDamaged, match="not ended"):
        list(FileReader(path))


def test_connections_that_are_gone_at_once_are_counted(tmp_path: Path) -> None:
    """On uvloop, as the command runs: there nobody can tell any more whose they were."""
    errors: list[object] = []

    def come_and_go(port: int) -> None:
        for _ in range(50):
            with socket.create_connection(("127.0.0.1", port)) as peer:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def record() -> Recorded:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, told: errors.append(told))
        with FileWriter(tmp_path / "feed.rec") as file:
            async with open_recorder(ANY_PORT, file) as recorder:
                # The loop stands still meanwhile: all have gone before it sees the first.
                come_and_go(recorder.port)
                told = recorder.recorded
                await until(lambda: told.gone == 50)
                return told

    told = uvloop.run(record())
    assert errors == []
    assert (told.peers, told.refused) == (0, 0)


async def test_nothing_is_left_behind_where_the_port_is_taken(tmp_path: Path) -> None:
    path, console = tmp_path / "feed.rec", Console(file=io.StringIO())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = FeedSettings(port=taken.getsockname()[1])
        with pytest.raises(PortInUse):
            await record_shown(path, settings, asyncio.Event(), console)
    assert not path.exists()


async def test_a_name_that_is_none_is_a_receiver_that_is_not_there() -> None:
    with pytest.raises(ReceiverUnavailable):
        await fast(Address("a" * 64 + ".example", 1)).play(a_connection([FRAMES[1]]))


@pytest.mark.parametrize("transport", Transport)
async def test_nobody_who_listens_is_told(transport: Transport) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as free:
        free.bind(("127.0.0.1", 0))
        to = Address("127.0.0.1", free.getsockname()[1])
        with pytest.raises(ReceiverUnavailable, match="nobody listens"):
            await fast(to, transport).play(a_connection([FRAMES[1]]))


async def test_what_a_receiver_did_not_take_is_counted() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        to = Address("127.0.0.1", server.sockets[0].getsockname()[1])
        records = a_connection([bytes(1000)] * 50)
        slow = [record._replace(time_ns=n * 10**6) for n, record in enumerate(records)]
        played = await Player(to).play(slow)
    assert played.hung_up == 1
    assert played.bytes + played.unsent == 50_000
    assert played.unsent > 40_000


async def test_damage_is_told_once_what_is_before_was_played(tmp_path: Path) -> None:
    path = tmp_path / "feed.rec"
    path.write_bytes(encoded(a_connection(FRAMES))[:-1])
    async with listening() as (to, made):
        with pytest.raises(RecordingDamaged, match="not ended"):
            await fast(to).play(open_recording(path))
    assert [each.data for each in made] == [b"".join(FRAMES)]


# Faults.


async def with_faults(faults: str, seed: int) -> list[bytes]:
    async with listening() as (to, made):
        player = fast(to, faults=faults, seed=seed)
        played = await player.play(a_connection([b"".join(FRAMES)]))
    assert played.connections == 1
    assert len(made) == 1 + played.cut
    return [each.data for each in made]


async def test_faults_are_the_same_for_the_same_seed() -> None:
    faults = "drop=10,cut=5,stall=0.001@5"
    once, again, other = [await with_faults(faults, seed) for seed in (7, 7, 8)]
    assert once == again
    assert once != other


async def test_a_drop_leaves_whole_frames_out() -> None:
    (data,) = await with_faults("drop=30%", 3)
    left = [frame(payload) for _, payload in split_frames(data)]
    assert 50 < len(left) < 90
    assert left == [each for each in FRAMES if each in left]


async def test_a_cut_leaves_half_a_frame_and_sends_it_again_whole() -> None:
    *broken, last = await with_faults("cut=10", 3)
    assert broken
    remaining = b"".join(FRAMES)
    for data in broken:
        assert remaining.startswith(data)
        at, size = 0, 0
        while at + size <= len(data):
            at += size
            size = 5 + struct.unpack_from("<i", remaining, at + 1)[0]
        assert len(data) == at + size // 2
        remaining = remaining[at:]
    assert last == remaining


async def test_a_cut_over_udp_begins_anew_from_another_port() -> None:
    async with datagram_listener() as (to, found):
        played = await fast(to, UDP, "cut=100").play(a_connection(FRAMES[1:3]))
        await until(lambda: len(found) == 6)
    assert played.cut == 2
    one, two = datagrams(FRAMES[1]), datagrams(FRAMES[2])
    assert [data for _, data in found] == [one[0], *one, two[0], *two]
    assert len({port for port, _ in found}) == 3


async def test_a_stall_holds_a_frame_back_by_half() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await with_faults("stall=0.02@10", 3) == [b"".join(FRAMES)]
    assert loop.time() - began > 0.08


def test_shares_are_those_that_were_asked_for() -> None:
    plan = FaultPlan(Faults.parse("drop=20, cut=10, stall=1s@5%"), 1)
    drawn = Counter(plan.next() for _ in range(10_000))
    for fault, percent in ((Fault.DROP, 20), (Fault.CUT, 10), (Fault.STALL, 5), (Fault.NONE, 65)):
        assert abs(drawn[fault] / 100 - percent) < 2


def test_faults_and_the_rest_of_the_command_line_are_read() -> None:
    assert Faults.parse("") == Faults()
    assert not Faults.parse("")
    assert Faults.parse("stall=5") == Faults(stall=1, stall_seconds=5)
    assert Address.parse("[::1]:8040") == ("::1", 8040)
    assert str(Address.parse("[::1]:8040")) == "[::1]:8040"
    assert str(Address.parse("localhost:1")) == "localhost:1"
    assert (parse_speed("max"), parse_speed("2.5")) == (AS_FAST_AS_POSSIBLE, 2.5)


@pytest.mark.parametrize(
    "text", ["drop", "drop=x", "drop=-1", "drop=1,drop=2", "drop=60,cut=41", "x=1"]
)
def test_faults_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Faults.parse(text)


@pytest.mark.parametrize(
    "text",
    ["", "8040", "host", "host:", "host:0", "host:70000", ":1", "h:²", f"host:{'1' * 5_000}"],
)
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Address.parse(text)


@pytest.mark.parametrize("text", ["", "0", "-1", "inf", "nan", "fast"])
def test_a_speed_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_speed(text)
