"""Blocks in their binary forms, as a node's API gave them, are sent as the node sent them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.core.binary.admin import AdminBlock
from bridge.core.binary.credits import CreditBlock
from bridge.core.binary.directory import DirectoryBlock
from bridge.core.binary.entries import Entry, EntryBlock
from bridge.core.binary.factoid import FactoidBlock
from bridge.emitter.config import Broadcast, LiveFeedConfig
from bridge.emitter.inputs import DirectoryBlockState
from bridge.emitter.service import EventService, NodeState
from bridge.pb.eventmessages.entryBlock_pb2 import EntryBlockEntry
from bridge.pb.eventmessages.factomEvents_pb2 import FactomEvent
from tests.support.captures import not_here
from tests.support.heights import RecordedHeight, extract, recording
from tests.unit.emitter.network import Outbox


def state_of(height: RecordedHeight) -> DirectoryBlockState:
    raw, contents = height.raw, height.contents
    blocks = [EntryBlock.parse(each) for each in raw.entry_blocks]
    state = DirectoryBlockState.of_blocks(
        DirectoryBlock.parse(raw.directory),
        AdminBlock.parse(raw.admin),
        FactoidBlock.parse(raw.factoid),
        CreditBlock.parse(raw.credit),
        blocks,
    )
    # An entry whose content nobody asked for has at least its hash and chain.
    entries = [
        Entry.parse(contents[hash_]).message()
        if hash_ in contents
        else EntryBlockEntry(hash=hash_, chainID=block.chain_id)
        for block in blocks
        for hash_ in block.entry_hashes()
    ]
    return replace(state, entries=tuple(entries))


def proven(heights: list[RecordedHeight]) -> tuple[int, int]:
    """Return how many replayed and how many live blocks were sent again byte for byte."""
    counts = [0, 0]
    for height in heights:
        always = height.capture == "backfill-api"
        broadcast = Broadcast.ALWAYS if always else Broadcast.ONCE
        outbox = Outbox(LiveFeedConfig(enabled=True, broadcast_content=broadcast))
        service = EventService()
        for payload in height.payloads:
            event = FactomEvent.FromString(payload)
            service.config_sender(NodeState(event.identityChainID, run_leader=True), outbox)
            if event.eventSource:
                service.emit_replay_directory_block_commit(state_of(height))
            else:
                service.emit_directory_block_commit_event(state_of(height))
            counts[not event.eventSource] += 1
            assert outbox.events[-1].SerializeToString() == payload, (height.capture, height.height)
    return counts[0], counts[1]


def test_the_heights_in_the_repository() -> None:
    assert sum(proven(extract())) >= 5


@pytest.mark.parametrize(
    ("name", "replayed", "live"),
    [("backfill-api", 141, 0), ("gap-api-replay", 28, 7), ("gap-api", 0, 7)],
)
def test_every_height_of_a_recorded_chain(name: str, replayed: int, live: int) -> None:
    heights = recording(name)
    if not heights:
        not_here(name)
    assert proven(heights) == (replayed, live)
