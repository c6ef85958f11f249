"""A bridge beside a hostile node: retries and alerts, and never a wrong block taken for a true one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bridge.core.hashing import sha256
from bridge.pb.bridge.v1.block_receipt_pb2 import BlockReceipt
from bridge.pb.eventmessages.factomEvents_pb2 import DirectoryBlockCommit
from tests.brokers.kafka import KafkaBroker
from tests.brokers.nats import NatsBroker
from tests.e2e.test_complete import Stand, last_receipts, standing
from tests.support.consumers import Read
from tests.support.factomd import Factomd, Hostile

pytestmark = [pytest.mark.brokers, pytest.mark.timeout(300)]

_BLOCKS = 24
_LIES = (
    Hostile.OTHER_HEIGHT,
    Hostile.REPARENTED,
    Hostile.OTHER_CHAIN,
    Hostile.FORGED_CREDITS,
    Hostile.HIGH_TIP,
)
_SLOW = {Hostile.HANG, Hostile.DRIP, Hostile.ENDLESS_HEAD}
"""What takes 30 s to be given up."""
_MOST_BYTES = 256 * 1024 * 1024


def _resident(stand: Stand) -> int:
    status = Path(f"/proc/{stand.bridge.pid}/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _wrong(read: list[Read], node: Factomd) -> list[int]:
    """Return heights of which another block than the node's is told to be verified."""
    true = {
        height: node.block(height).directory.hashes().key_merkle_root for height in node.heights
    }
    receipts = (BlockReceipt.FromString(r.data) for r in read if r.kind == "block-receipt")
    return [
        receipt.height
        for receipt in receipts
        if receipt.hashes_verified
        and receipt.links_verified
        and receipt.key_merkle_root != true.get(receipt.height)
    ]


async def _gap(stand: Stand, node: Factomd) -> None:
    await asyncio.to_thread(stand.bridge.wait_ready)
    await node.live(0, 1, 2, _BLOCKS - 2, _BLOCKS - 1)
    await stand.until("open the gap", gaps_open=1)


async def test_with_every_twentieth_answer_hostile_all_is_fetched_in_the_end(
    tmp_path: Path, kafka: KafkaBroker, nats_server: NatsBroker
) -> None:
    node = Factomd.of_chain(_BLOCKS)
    node.silent_replay = True
    modes = [mode for mode in Hostile if mode not in _SLOW]
    node.behave(*(each for mode in modes for each in (mode, *[None] * 19)))
    async with standing(
        tmp_path,
        kafka,
        nats_server,
        "hostile",
        node,
        BRIDGE_NODE__REPLAY_SECONDS="0.2",
        BRIDGE_NODE__REQUESTS_PER_SECOND="1000",
    ) as stand:
        await _gap(stand, node)
        await stand.settled(_BLOCKS - 1, seconds=200)
        stream = await stand.stream()
        code, output = await stand.verify(0, _BLOCKS - 1)
        resident = _resident(stand)
    assert code == 0, output
    assert _wrong(stream, node) == []
    assert resident < _MOST_BYTES
    # A fetch is some ten requests, and is made anew when one of them is answered wrong.
    assert node.requests.total() < _BLOCKS * 400


@pytest.mark.parametrize(
    "mode", [Hostile.ENDLESS, Hostile.MANY_PARTS, Hostile.GZIP_BOMB, Hostile.DEEP], ids=str
)
async def test_answers_without_end_take_no_memory(
    mode: Hostile, tmp_path: Path, kafka: KafkaBroker, nats_server: NatsBroker
) -> None:
    node = Factomd.of_chain(_BLOCKS)
    node.silent_replay = True
    name = f"endless-{mode.name.lower()}"
    async with standing(
        tmp_path, kafka, nats_server, name, node, BRIDGE_NODE__REPLAY_SECONDS="0.1"
    ) as stand:
        await _gap(stand, node)
        node.behave(mode)
        await asyncio.sleep(6)
        resident = _resident(stand)
    assert resident < _MOST_BYTES


@pytest.mark.parametrize("lie", _LIES, ids=lambda lie: lie.name.lower())
async def test_a_lie_is_never_taken_for_true(
    lie: Hostile, tmp_path: Path, kafka: KafkaBroker, nats_server: NatsBroker
) -> None:
    node = Factomd.of_chain(_BLOCKS)
    async with standing(
        tmp_path,
        kafka,
        nats_server,
        f"lie-{lie.name.lower()}",
        node,
        BRIDGE_NODE__REPLAY_SECONDS="0.2",
        BRIDGE_NODE__REQUESTS_PER_SECOND="1000",
        BRIDGE_NODE__HEIGHTS_SECONDS="1",
    ) as stand:
        await asyncio.to_thread(stand.bridge.wait_ready)
        await node.live(0, 1, 2, _BLOCKS - 2, _BLOCKS - 1)
        node.silent_replay = True
        node.behave(lie)
        await stand.until("open the gap", gaps_open=1)
        await asyncio.sleep(6)
        asked = node.requests.total()
        lied = await stand.stream()
        node.behave()
        # Entries that were lied about wait for minutes by now; the gap does not.
        await stand.until("fill the gap", gaps_open=0)
        stream = await stand.stream()
    assert _wrong(stream, node) == []
    heights = {height for height, receipt in last_receipts(lied).items() if receipt.links_verified}
    expected = set(range(_BLOCKS)) if lie is Hostile.HIGH_TIP else {0, 1, 2, _BLOCKS - 1}
    assert heights <= expected
    published = {
        sha256(DirectoryBlockCommit.FromString(r.data).directoryBlock.SerializeToString())
        for r in lied
        if r.kind == "directory-block-commit" and r.attributes["origin"] == "api"
    }
    true = {
        sha256(node.block(height).live().directory_block.SerializeToString())
        for height in node.heights
    }
    assert published <= true, "what is not true is not even published"
    assert asked < 2_000
