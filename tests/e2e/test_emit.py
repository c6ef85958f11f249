"""The simulated node as users have it: `factom-bridge emit`, into a bridge of its own."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bridge.core.binary.directory import DirectoryBlock
from bridge.core.binary.entries import EntryBlock
from bridge.core.framing import FrameDecoder, split_frames
from bridge.core.rebuild import RawHeight, rebuild
from bridge.core.verify import Links, verify
from bridge.pb.bridge.v1.gap_alert_pb2 import GapAlert
from bridge.pb.eventmessages.factomEvents_pb2 import (
    DirectoryBlockCommit,
    EventSource,
    FactomEvent,
)
from tests.brokers.process import free_port
from tests.support.bridge_process import BridgeProcess, run_command
from tests.support.consumers import Read, read_stream, without_repeats

pytestmark = pytest.mark.brokers

DAY = 144
DAY_SECONDS = 60
TOLD = re.compile(r"([\d,]+) events, ([\d,]+) waiting, ([\d,]+) not sent, ([\d,]+) dropped")


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[BridgeProcess]:
    environ = {"BRIDGE_FORMAT": "protobuf", "BRIDGE_TRACKER__GRACE_SECONDS": "0"}
    with BridgeProcess(tmp_path, environ) as running:
        running.wait_ready()
        yield running


async def emitted(bridge: BridgeProcess, *arguments: str) -> list[Read]:
    """Run `emit` into `bridge`, and return what is on the stream once all of it is there."""
    began = time.monotonic()
    done = run_command(
        "emit",
        "--to",
        f"127.0.0.1:{bridge.feed_port}",
        "--blocks",
        str(DAY),
        "--block-seconds",
        "0",
        *arguments,
        seconds=DAY_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    told = TOLD.search(done.stdout)
    assert told, done.stdout
    events, *losses = (int(each.replace(",", "")) for each in told.groups())
    assert losses == [0, 0, 0]
    await bridge.delivered(events)
    assert time.monotonic() - began < DAY_SECONDS
    return without_repeats(await read_stream(f"nats://127.0.0.1:{bridge.nats_port}"))


def blocks(messages: list[Read]) -> list[DirectoryBlockCommit]:
    return [
        DirectoryBlockCommit.FromString(message.data)
        for message in messages
        if message.kind == "directory-block-commit"
    ]


def alerts(messages: list[Read]) -> list[GapAlert]:
    return [GapAlert.FromString(each.data) for each in messages if each.kind == "gap-alert"]


def heights(found: list[DirectoryBlockCommit]) -> list[int]:
    return [block.directoryBlock.header.blockHeight for block in found]


@pytest.mark.parametrize("feed", [(), ("EventFormat=json", "EventBroadcastContent=always")])
async def test_a_day_goes_through_whole(bridge: BridgeProcess, feed: tuple[str, ...]) -> None:
    settings = [part for each in feed for part in ("--feed", each)]
    messages = await emitted(bridge, "--entries", "5", *settings)
    found = blocks(messages)
    assert heights(found) == list(range(1, DAY + 1))
    assert alerts(messages) == []
    links: Links | None = None
    for block in found:
        seen = verify(block, links)
        assert seen.holds
        links = seen.links


async def test_one_block_lost_is_one_alert(bridge: BridgeProcess) -> None:
    messages = await emitted(bridge, "--fault", "lose=70")
    assert heights(blocks(messages)) == [each for each in range(1, DAY + 1) if each != 70]
    (alert,) = alerts(messages)
    assert alert.type == GapAlert.TYPE_GAP
    assert alert.status == GapAlert.STATUS_OPENED


async def test_what_is_rejected_is_told_and_missed_by_nobody(bridge: BridgeProcess) -> None:
    messages = await emitted(bridge, "--fault", "reject=30")
    states = Counter(
        (each.kind, each.attributes["entitystate"])
        for each in messages
        if each.kind in ("chain-commit", "entry-commit")
    )
    rejected = states["entry-commit", "REJECTED"], states["chain-commit", "REJECTED"]
    assert min(rejected) > 0
    requested = sum(count for (_, state), count in states.items() if state == "REQUESTED")
    # With ten entries and a chain in each block; where there is no chain yet, an entry opens one.
    assert requested - sum(rejected) == 11 * DAY
    done = run_command(
        *("verify", "--sink", "nats", "--from", "1", "--to", str(DAY)),
        environ={"BRIDGE_NATS__SERVERS": f"nats://127.0.0.1:{bridge.nats_port}"},
    )
    assert done.returncode == 0, done.stdout
    assert re.search(rf"commits +{11 * DAY} +0 ", done.stdout), done.stdout


class Receiver:
    """Listens in a thread, and keeps what one connection brings."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.stream = bytearray()
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def _receive(self) -> None:
        with self._server, self._server.accept()[0] as connection:
            while data := connection.recv(1 << 16):
                self.stream += data

    @property
    def events(self) -> list[FactomEvent]:
        decoder = FrameDecoder(max_payload=1 << 24)
        decoder.receive(bytes(self.stream))
        _, whole = decoder.take()
        return [FactomEvent.FromString(payload) for _, payload in split_frames(whole)]

    def close(self) -> None:
        """Wait for the end of the connection."""
        self._thread.join(10)
        assert not self._thread.is_alive()


@contextmanager
def a_day_with(*faults: str) -> Iterator[tuple[Receiver, int]]:
    """Grow a day into a receiver; yields it and the API's port once all has grown."""
    receiver = Receiver()
    node = subprocess.Popen(
        [
            *(sys.executable, "-m", "bridge", "emit", "--to", f"127.0.0.1:{receiver.port}"),
            *("--blocks", str(DAY), "--block-seconds", "0", "--api-port", "0", "--stay"),
            *("--fault", ",".join(faults)),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert node.stdout is not None
        # The port is told before anything has grown.
        told = re.search(r":(\d+)/v2", node.stdout.readline())
        assert told
        api, until = int(told[1]), time.monotonic() + DAY_SECONDS
        while tip(api) < DAY or not quiet(receiver):
            assert time.monotonic() < until
        yield receiver, api
        node.send_signal(signal.SIGTERM)
        assert node.wait(10) == 0
    finally:
        node.kill()
        node.communicate()
    receiver.close()


def quiet(receiver: Receiver) -> bool:
    """Tell whether nothing comes any more."""
    size = len(receiver.stream)
    time.sleep(0.3)
    return len(receiver.stream) == size


def blocks_of(events: list[FactomEvent]) -> list[int]:
    return [
        event.directoryBlockCommit.directoryBlock.header.blockHeight
        for event in events
        if event.HasField("directoryBlockCommit")
    ]


def test_the_api_has_what_the_feed_dropped_and_the_same_seed_drops_the_same() -> None:
    with a_day_with("drop=2") as (first, api):
        live = bytes(first.stream)
        lost = sorted(set(range(1, DAY + 1)) - set(blocks_of(first.events)))
        assert lost
        kinds = Counter(event.WhichOneof("event") for event in first.events)
        # Sent twice each, requested and accepted: some of every kind are gone.
        assert kinds["chainCommit"] + kinds["entryCommit"] < 2 * 11 * DAY
        assert kinds["entryReveal"] < 11 * DAY
        assert ask(api, "heights")["directoryblockheight"] == DAY
        for height in lost:
            assert rebuilt(api, height).entryBlocks
        for height in lost:
            # A replay goes the way of all events, and may be dropped as well.
            until = time.monotonic() + 20
            while height not in blocks_of(first.events):
                ask(api, "replay-from-height", startheight=height, endheight=height)
                assert time.monotonic() < until
                time.sleep(0.05)
        replayed = {
            event.directoryBlockCommit.directoryBlock.header.blockHeight: event
            for event in first.events
            if event.eventSource == EventSource.REPLAY_BOOT
        }
        for height in lost:
            commit = replayed[height].directoryBlockCommit
            assert verify(commit).holds
            assert commit.directoryBlock == rebuilt(api, height).directoryBlock
        counters = urllib.request.urlopen(f"http://127.0.0.1:{api}/metrics", timeout=5)
        with counters:
            told = counters.read().decode()
        assert "factomd_livefeed_not_send_counter 0.0" in told
        assert "factomd_livefeed_dropped_from_queue_counter 0.0" in told
    with a_day_with("drop=2") as (second, _):
        assert bytes(second.stream) == live


def rebuilt(api: int, height: int) -> DirectoryBlockCommit:
    """Return the block that the API's binary forms make; each has the hash that lists it."""
    raw = {
        name: bytes.fromhex(ask(api, f"{name}block-by-height", height=height)["rawdata"])
        for name in ("d", "a", "ec", "f")
    }
    listed = [key.hex() for _, key in DirectoryBlock.parse(raw["d"]).entry_blocks]
    data = {key: bytes.fromhex(ask(api, "raw-data", hash=key)["data"]) for key in listed}
    parts = RawHeight(raw["d"], raw["a"], raw["ec"], raw["f"], tuple(data.values()))
    entries = {
        hash_: bytes.fromhex(ask(api, "raw-data", hash=hash_.hex())["data"])
        for part in parts.entry_blocks
        for hash_ in EntryBlock.parse(part).entry_hashes()
    }
    found = rebuild(parts, entries).message
    assert found.directoryBlock.header.blockHeight == height
    return found


def test_nobody_listens_over_udp() -> None:
    done = run_command(
        *("emit", "--to", f"127.0.0.1:{free_port()}", "--feed", "EventReceiverProtocol=udp"),
        *("--blocks", "1", "--block-seconds", "0", "--give-up"),
    )
    # The kernel tells of the first datagram when the second is sent.
    assert done.returncode == 69


def test_nobody_listens() -> None:
    done = run_command(
        *("emit", "--to", f"127.0.0.1:{free_port()}", "--blocks", "3", "--block-seconds", "0"),
        "--give-up",
    )
    assert done.returncode == 69
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--to", "nowhere"],
        ["--to", "127.0.0.1:1", "--fault", "nonsense=1"],
        ["--to", "127.0.0.1:1", "--feed", "Nonsense=1"],
        ["--to", "127.0.0.1:1", "--blocks", "-1"],
    ],
)
def test_a_command_line_that_makes_no_sense_exits_64(arguments: list[str]) -> None:
    done = run_command("emit", *arguments)
    assert done.returncode == 64
    assert "Traceback" not in done.stderr


async def test_the_api_is_served_until_sigterm_and_replays_what_was_lost(
    bridge: BridgeProcess,
) -> None:
    api = free_port()
    arguments = ("--blocks", "20", "--block-seconds", "0", "--fault", "lose=7,dark=10+3")
    node = subprocess.Popen(
        [
            *(sys.executable, "-m", "bridge", "emit", *arguments),
            *("--to", f"127.0.0.1:{bridge.feed_port}", "--api-port", str(api), "--stay"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        until = time.monotonic() + 20
        while tip(api) < 20:
            assert time.monotonic() < until
            time.sleep(0.02)
        for first, last in ((7, 7), (10, 12)):
            answer = ask(api, "replay-from-height", startheight=first, endheight=last)
            assert (answer["startheight"], answer["endheight"]) == (first, last)

        def all_came() -> bool:
            published = "bridge_messages_published_total"
            return bridge.metrics().total(published, kind="directory-block-commit") == 20

        bridge.wait_for(all_came, 20, "get every block")
        node.send_signal(signal.SIGTERM)
        assert node.wait(10) == 0
    finally:
        node.kill()
        node.communicate()
    messages = without_repeats(await read_stream(f"nats://127.0.0.1:{bridge.nats_port}"))
    assert Counter(heights(blocks(messages))) == Counter(range(1, 21))
    states = [alert.status for alert in alerts(messages)]
    assert states.count(GapAlert.STATUS_OPENED) == states.count(GapAlert.STATUS_RESOLVED) == 2


def ask(port: int, method: str, **params: int | str) -> Any:
    body = json.dumps({"jsonrpc": "2.0", "id": 0, "method": method, "params": params}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v2", body)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=5) as answer:
        return json.load(answer)["result"]


def tip(port: int) -> int:
    try:
        found: int = ask(port, "heights")["directoryblockheight"]
    except OSError:
        return -1
    return found
