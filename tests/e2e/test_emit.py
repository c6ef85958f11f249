"""The simulated node as users have it: `factom-bridge emit`, into a bridge of its own."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.core.verify import Links, verify
from bridge.pb.bridge.v1.gap_alert_pb2 import GapAlert
from bridge.pb.eventmessages.factomEvents_pb2 import DirectoryBlockCommit
from tests.brokers.process import free_port
from tests.support.bridge_process import BridgeProcess, run_command
from tests.support.consumers import Read, read_stream, without_repeats

pytestmark = pytest.mark.brokers

DAY = 144
DAY_SECONDS = 60
TOLD = re.compile(r"([\d,]+) events, ([\d,]+) waiting, ([\d,]+) not sent, ([\d,]+) dropped")


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[BridgeProcess]:
    with BridgeProcess(tmp_path, {"BRIDGE_FORMAT": "protobuf"}) as running:
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


async def test_a_bridge_that_knows_the_api_asks_for_what_was_lost_by_itself(tmp_path: Path) -> None:
    api = free_port()
    environ = {
        "BRIDGE_NODE__URL": f"http://127.0.0.1:{api}/v2",
        "BRIDGE_NODE__GRACE_SECONDS": "0.5",
        "BRIDGE_NODE__PAGE_HEIGHTS": "5",
    }
    with BridgeProcess(tmp_path, environ) as bridge:
        bridge.wait_ready()
        node = subprocess.Popen(
            [
                *(sys.executable, "-m", "bridge", "emit", "--to", f"127.0.0.1:{bridge.feed_port}"),
                *("--blocks", "40", "--block-seconds", "0", "--fault", "lose=7,dark=10+12"),
                *("--api-port", str(api), "--stay"),
            ],
            stdout=subprocess.DEVNULL,
        )
        try:

            def filled() -> bool:
                metrics = bridge.metrics()
                resolved = metrics.total("bridge_gap_signals_total", signal="resolved")
                return resolved == 2 and not metrics.longest_lag

            bridge.wait_for(filled, 30, "fill the gaps")
        finally:
            node.kill()
            node.wait()
        done = run_command(
            *("verify", "--sink", "nats", "--from", "1", "--to", "40"),
            environ={"BRIDGE_NATS__SERVERS": f"nats://127.0.0.1:{bridge.nats_port}"},
        )
        found = await read_stream(f"nats://127.0.0.1:{bridge.nats_port}")
    came = [int(m.attributes["blockheight"]) for m in found if "blockdetail" in m.attributes]
    assert set(came) == set(range(1, 41))
    told = [json.loads(m.data) for m in found if m.kind == "gap-alert"]
    assert [alert["how"] for alert in told if alert["status"] == "STATUS_RESOLVED"] == (
        ["HOW_REPLAY"] * 2
    )
    # The blocks are all there; what else was lost in the dark, commits and reveals, verify names.
    assert re.search(r"heights +40 +0 ", done.stdout), done.stdout
    assert re.search(r"links of blocks +39 +0 ", done.stdout), done.stdout
    assert done.returncode == 1
    assert "the commit of the entry" in done.stdout


def ask(port: int, method: str, **params: int) -> Any:
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
