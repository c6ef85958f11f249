"""A recorded feed with a gap, beside its node's API: what is missing is found, told, and fetched."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from bridge.core.framing import frame
from bridge.core.rebuild import rebuild
from bridge.pb.bridge.v1.block_receipt_pb2 import BlockReceipt
from bridge.pb.bridge.v1.gap_alert_pb2 import GapAlert
from bridge.pb.eventmessages.factomEvents_pb2 import (
    ChainCommit,
    EntryCommit,
    EntryReveal,
    FactomEvent,
)
from tests.brokers.kafka import KafkaBroker
from tests.brokers.nats import NatsBroker
from tests.support.bridge_process import BridgeProcess, run_command
from tests.support.captures import find_capture
from tests.support.consumers import Read, read_stream, read_topics
from tests.support.factomd import Factomd
from tests.support.heights import RecordedHeight, answers

pytestmark = pytest.mark.brokers

_SECONDS = 60


class Alert(NamedTuple):
    """What a state of a gap tells."""

    status: str
    first: int
    last: int
    missing: int
    how: str


class Stand:
    """A bridge with both brokers, and what consumers find there."""

    def __init__(
        self, folder: Path, kafka: KafkaBroker, nats: NatsBroker, name: str, **environ: str
    ) -> None:
        self.name = name
        self.kafka, self.nats = kafka, nats
        self.bridge = BridgeProcess(
            folder,
            {
                "BRIDGE_PREFIX": name,
                "BRIDGE_FORMAT": "protobuf",
                "BRIDGE_NATS__STREAM": name,
                "BRIDGE_NATS__SERVERS": nats.url,
                "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap,
                "BRIDGE_TRACKER__GRACE_SECONDS": "1",
                "BRIDGE_NODE__REPLAY_SECONDS": "1",
                **environ,
            },
        )

    async def play(self, capture: str) -> None:
        recorded = find_capture(capture)
        assert recorded is not None
        await asyncio.to_thread(self.bridge.wait_ready)
        await recorded.play(self.bridge.feed_port)
        await self.bridge.delivered(len(recorded.events()))

    async def stream(self) -> list[Read]:
        return await read_stream(self.nats.url, self.name)

    async def topics(self) -> dict[str, list[Read]]:
        found = await read_topics(self.kafka.bootstrap, self.name)
        return {topic.removeprefix(f"{self.name}."): read for topic, read in found.items()}

    async def until(self, what: str, seconds: float = _SECONDS, **conditions: float) -> None:
        """Return when metrics have these values, and all is published."""

        def holds() -> bool:
            metrics = self.bridge.metrics()
            return metrics.longest_lag == 0 and all(
                metrics.total(f"bridge_{name}") == value for name, value in conditions.items()
            )

        await asyncio.to_thread(self.bridge.wait_for, holds, seconds, what)

    async def settled(self, highest: int, seconds: float = _SECONDS) -> None:
        """Return when nothing is missing up to `highest`, and every height has its receipt."""

        # The block below the first is not there, so its links cannot be proven.
        heights = range(2, highest + 1)
        deadline = time.monotonic() + seconds
        await self.until("fill the gap", seconds, gaps_open=0)
        while left := incomplete(await self.stream(), heights):
            assert time.monotonic() < deadline, f"{len(left)} left: {left[0]}\n{self.bridge.tail}"
            await asyncio.sleep(0.5)
        await self.until("publish it all")

    async def verify(self, first: int, last: int) -> tuple[int, str]:
        done = await asyncio.to_thread(
            run_command,
            *("verify", "--from", str(first), "--to", str(last)),
            environ=self.bridge.environ,
            seconds=60,
        )
        return done.returncode, done.stdout + done.stderr


@asynccontextmanager
async def standing(
    folder: Path,
    kafka: KafkaBroker,
    nats: NatsBroker,
    name: str,
    node: Factomd | None = None,
    **environ: str,
) -> AsyncIterator[Stand]:
    """Run a bridge that knows `node`, which sends its replays to it."""
    async with AsyncExitStack() as resources:
        if node is not None:
            environ["BRIDGE_NODE__URL"] = await resources.enter_async_context(node.serve())
        stand = Stand(folder, kafka, nats, name, **environ)
        await asyncio.to_thread(stand.bridge.start)
        resources.callback(stand.bridge.kill)
        if node is not None:
            await resources.enter_async_context(node.feeding(stand.bridge.feed_port))
        yield stand
        await asyncio.to_thread(stand.bridge.stop)


def alerts(read: list[Read]) -> list[GapAlert]:
    return [GapAlert.FromString(each.data) for each in read if each.kind == "gap-alert"]


def last_receipts(read: list[Read]) -> dict[int, BlockReceipt]:
    receipts = (BlockReceipt.FromString(r.data) for r in read if r.kind == "block-receipt")
    return {receipt.height: receipt for receipt in receipts}


def incomplete(read: list[Read], heights: range) -> list[str]:
    receipts = last_receipts(read)
    return [
        f"{height}: {receipts.get(height)}"
        for height in heights
        if height not in receipts
        or not receipts[height].complete
        or not receipts[height].HasField("reveals_expected")
    ]


def told(alert: GapAlert) -> Alert:
    return Alert(
        GapAlert.Status.Name(alert.status).removeprefix("STATUS_").lower(),
        alert.first_height,
        alert.last_height,
        alert.missing_count,
        GapAlert.How.Name(alert.how).removeprefix("HOW_").lower(),
    )


def assert_heights_are_there(read: list[Read], capture: str, heights: range) -> None:
    """Check blocks, commits and entries against what the node's API gives for `heights`."""
    known = {recorded.height: recorded for recorded in _of_the_api(capture)}
    blocks = {each.data for each in read if each.kind == "directory-block-commit"}
    commits = {
        member.entryHash
        for kind, type_ in (("chain-commit", ChainCommit), ("entry-commit", EntryCommit))
        for member in (type_.FromString(each.data) for each in read if each.kind == kind)
    }
    reveals = {
        EntryReveal.FromString(each.data).entry.hash for each in read if each.kind == "entry-reveal"
    }
    for height in heights:
        expected = rebuild(known[height].raw).message
        assert expected.SerializeToString() in blocks, height
        for item in expected.entryCreditBlock.entries:
            which = item.WhichOneof("entryCreditBlockEntry")
            if which in {"chainCommit", "entryCommit"}:
                assert getattr(item, which).entryHash in commits, height
        for entry in expected.entryBlockEntries:
            assert entry.hash in reveals, height


def _of_the_api(capture: str) -> list[RecordedHeight]:
    known = answers(capture)
    heights = sorted(int(asked) for method, asked in known if method == "fblock-by-height")
    return [RecordedHeight(capture, height, (), known) for height in heights]


async def test_without_the_api_a_gap_is_told_once_with_its_cause_and_stays_open(
    tmp_path: Path, kafka: KafkaBroker, nats_server: NatsBroker
) -> None:
    Factomd.of_capture("gap-api")  # skips where it is not
    async with standing(tmp_path, kafka, nats_server, "gap-untold") as stand:
        await stand.play("gap-api")
        await stand.until("open the gap", gaps_open=1, heights_missing=23)
        await asyncio.sleep(1)
        found = alerts(await stand.stream())
        code, output = await stand.verify(1, 30)
    assert [told(alert) for alert in found] == [Alert("opened", 4, 26, 23, "unspecified")]
    assert found[0].cause != GapAlert.CAUSE_UNSPECIFIED
    assert (found[0].height_before, found[0].height_after) == (3, 27)
    assert code == 1
    assert "heights 4 to 26 are missing" in output


@pytest.mark.parametrize("silent", [False, True], ids=["replay", "api"])
async def test_with_the_api_the_gap_is_filled_and_all_of_it_is_published(
    tmp_path: Path, kafka: KafkaBroker, nats_server: NatsBroker, silent: bool
) -> None:
    node = Factomd.of_capture("gap-api")
    node.silent_replay = silent
    name = f"gap-{'api' if silent else 'replay'}"
    async with standing(tmp_path, kafka, nats_server, name, node) as stand:
        await stand.play("gap-api")
        await stand.settled(30)
        stream, topics = await stand.stream(), await stand.topics()
        code, output = await stand.verify(1, 30)
    for read in (stream, [each for topic in topics.values() for each in topic]):
        assert_heights_are_there(read, "gap-api", range(4, 27))
        ids = [each.id for each in read if each.kind == "directory-block-commit"]
        assert len(ids) == len(set(ids))
    of_gap = [told(alert) for alert in alerts(stream) if alert.type == GapAlert.TYPE_GAP]
    assert of_gap[0] == Alert("opened", 4, 26, 23, "unspecified")
    assert of_gap[-1] == Alert("resolved", 4, 26, 0, "api" if silent else "replay")
    assert len({alert.gap_id for alert in alerts(stream)}) == 1
    assert "backfilling" in {alert.status for alert in of_gap}
    assert code == 0, output


async def test_what_a_replay_leaves_out_comes_by_the_api(
    tmp_path: Path, kafka: KafkaBroker, nats_server: NatsBroker
) -> None:
    capture = find_capture("gap-api-replay")
    node = Factomd.of_capture("gap-api-replay")
    assert capture is not None
    payloads = capture.payloads()
    events = [FactomEvent.FromString(payload) for payload in payloads]
    replayed = next(place for place, event in enumerate(events) if event.eventSource == 1)
    node.silent_replay = True
    async with standing(tmp_path, kafka, nats_server, "gap-left", node) as stand:
        await asyncio.to_thread(stand.bridge.wait_ready)
        _, writer = await asyncio.open_connection("127.0.0.1", stand.bridge.feed_port)
        writer.write(b"".join(map(frame, payloads[:replayed])))
        await stand.until("open the gap", gaps_open=1, heights_missing=28)
        writer.write(b"".join(map(frame, payloads[replayed:])))
        await stand.settled(35)
        writer.close()
        stream = await stand.stream()
        code, output = await stand.verify(1, 35)
    ways: dict[int, list[str]] = {}
    for read in stream:
        if read.kind == "directory-block-commit":
            attributes = read.attributes
            ways.setdefault(int(attributes["blockheight"]), []).append(attributes["origin"])
    assert [ways[height] for height in range(4, 31)] == [["replay"]] * 27
    assert ways[31] == ["api"]
    of_gap = [told(alert) for alert in alerts(stream) if alert.type == GapAlert.TYPE_GAP]
    assert of_gap[0] == Alert("opened", 4, 31, 28, "unspecified")
    assert of_gap[-1] == Alert("resolved", 4, 31, 0, "api")
    assert_heights_are_there(stream, "gap-api-replay", range(4, 32))
    assert code == 0, output
