"""`emitter.service`: which events leave, with which fields, under every setting.

Each row names its source: section 4 of shared/feed.md, a recording, or factomd's own rule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest

from bridge.core.binary.commits import ChainCommit, EntryCommit
from bridge.core.binary.entries import Entry
from bridge.emitter.config import Broadcast, LiveFeedConfig
from bridge.emitter.inputs import AnchorInfo, DirectoryBlockState, EntryReveal
from bridge.emitter.service import EventService, NodeState
from bridge.pb.eventmessages import (
    adminBlock_pb2,
    directoryBlock_pb2,
    entryBlock_pb2,
    factoidBlock_pb2,
    factomEvents_pb2 as pb,
)
from tests.unit.emitter.network import Outbox

NEVER, ONCE, ALWAYS = Broadcast.NEVER, Broadcast.ONCE, Broadcast.ALWAYS
REQUESTED = pb.EntityState.REQUESTED
ACCEPTED, REJECTED = pb.EntityState.ACCEPTED, pb.EntityState.REJECTED
IDENTITY = bytes(range(32))
MS = 1_580_000_000_123
EC, EC_MS = b"k" * 32, {"seconds": 1_580_000_000, "nanos": 123_000_000}
QUIRK = {"seconds": 1_580_000_000, "nanos": 123_000}

CHAIN = ChainCommit(MS, b"c" * 32, b"w" * 32, b"e" * 32, 11, EC, b"s" * 64)
COMMIT = EntryCommit(MS, b"e" * 32, 1, EC, b"s" * 64)
ENTRY = Entry(b"C" * 32, (b"name", b""), b"content")
REVEAL = EntryReveal(ENTRY, MS)
BLOCK = DirectoryBlockState(
    directoryBlock_pb2.DirectoryBlock(hash=b"d"),
    adminBlock_pb2.AdminBlock(keyMerkleRoot=b"a"),
    factoidBlock_pb2.FactoidBlock(transactions=[{"timestamp": EC_MS}]),
    pb.EntryCreditBlock(entries=[{}]),
    (entryBlock_pb2.EntryBlock(entryHashes=[b"e"]),),
    (ENTRY.message(),),
)
ANCHOR = AnchorInfo(b"h", b"m", 7, MS, b"t", 1, 2, b"b", True, b"r", True)

Emit = Callable[[EventService], None]
OPERATIONS: dict[str, Emit] = {
    "register chain": lambda s: s.emit_registration_event(CHAIN),
    "register entry": lambda s: s.emit_registration_event(COMMIT),
    "register reveal": lambda s: s.emit_registration_event(REVEAL),
    "accept chain": lambda s: s.emit_state_change_event(CHAIN, ACCEPTED),
    "accept entry": lambda s: s.emit_state_change_event(COMMIT, ACCEPTED),
    "accept reveal": lambda s: s.emit_state_change_event(REVEAL, ACCEPTED),
    "reject chain": lambda s: s.emit_state_change_event(CHAIN, REJECTED),
    "reject entry": lambda s: s.emit_state_change_event(COMMIT, REJECTED),
    "reject reveal": lambda s: s.emit_state_change_event(REVEAL, REJECTED),
    "block": lambda s: s.emit_directory_block_commit_event(BLOCK),
    "anchor": lambda s: s.emit_directory_block_anchor_event(ANCHOR),
    "replay": lambda s: s.emit_replay_directory_block_commit(BLOCK),
    "new block": lambda s: s.emit_process_list_event_new_block(5),
    "new minute": lambda s: s.emit_process_list_event_new_minute(2, 5),
    "info": lambda s: s.emit_node_info_message(pb.NodeMessageCode.STARTED, "up %d %s", 1, "x"),
    "error": lambda s: s.emit_node_error_message(pb.NodeMessageCode.GENERAL, "50 % down"),
}


def a_chain(state: pb.EntityState) -> pb.FactomEvent:
    return pb.FactomEvent(chainCommit=CHAIN.message(state))


def an_entry(state: pb.EntityState) -> pb.FactomEvent:
    return pb.FactomEvent(entryCommit=COMMIT.message(state))


def a_reveal(state: int) -> pb.FactomEvent:
    reveal = {"entityState": state, "entry": ENTRY.message(), "timestamp": QUIRK}
    return pb.FactomEvent(entryReveal=reveal)


def a_change(hash_: bytes, state: int) -> pb.FactomEvent:
    return pb.FactomEvent(stateChange={"entityHash": hash_, "entityState": state})


def a_block(*, entries: bool = False, content: bool = False) -> pb.FactomEvent:
    block = pb.DirectoryBlockCommit(
        directoryBlock={"hash": b"d"},
        adminBlock={"keyMerkleRoot": b"a"},
        factoidBlock={"transactions": [{"timestamp": QUIRK}]},
        entryCreditBlock={"entries": [{}]},
    )
    if entries:
        block.entryBlocks.add(entryHashes=[b"e"])
        listed = block.entryBlockEntries.add(hash=ENTRY.hash(), chainID=ENTRY.chain_id)
        if content:
            listed.externalIDs.extend([b"name", b""])
            listed.content = b"content"
    return pb.FactomEvent(directoryBlockCommit=block)


AN_ANCHOR = pb.FactomEvent(
    directoryBlockAnchor={
        "directoryBlockHash": b"h",
        "directoryBlockMerkleRoot": b"m",
        "blockHeight": 7,
        "timestamp": QUIRK,
        "btcTxHash": b"t",
        "btcTxOffset": 1,
        "btcBlockHeight": 2,
        "btcBlockHash": b"b",
        "btcConfirmed": True,
        "ethereumAnchorRecordEntryHash": b"r",
        "ethereumConfirmed": True,
    }
)
A_NEW_BLOCK = pb.FactomEvent(processListEvent={"newBlockEvent": {"newBlockHeight": 5}})
A_NEW_MINUTE = pb.FactomEvent(
    processListEvent={"newMinuteEvent": {"newMinute": 2, "blockHeight": 5}}
)
AN_INFO = pb.FactomEvent(nodeMessage={"messageCode": 1, "messageText": "up 1 x"})
AN_ERROR = pb.FactomEvent(nodeMessage={"level": 2, "messageText": "50 % down"})
NO_MEMBER = pb.FactomEvent()

Row = tuple[str, set[Broadcast], set[bool], pb.FactomEvent | None, str]
ANY, BOTH, STATES, WHOLE = {NEVER, ONCE, ALWAYS}, {True, False}, {True}, {False}

WHAT: list[Row] = [
    # operation, broadcast content, send-state-change, event, source of the expectation
    ("register chain", ANY, BOTH, a_chain(REQUESTED), "feed.md 4: registration (REQUESTED)"),
    ("register entry", ANY, BOTH, an_entry(REQUESTED), "feed.md 4: registration (REQUESTED)"),
    ("register reveal", {NEVER}, BOTH, None, "feed.md 4: never: not sent at registration"),
    ("register reveal", {ONCE, ALWAYS}, BOTH, a_reveal(0), "feed.md 4: content at registration"),
    (
        "accept chain",
        ANY,
        WHOLE,
        a_chain(ACCEPTED),
        "feed.md 4: again for ACCEPTED; tcp-protobuf-once",
    ),
    ("accept chain", ANY, STATES, a_change(b"c" * 32, 1), "feed.md 4: entityHash = chainIDHash"),
    ("accept entry", ANY, WHOLE, an_entry(ACCEPTED), "feed.md 4: again for ACCEPTED"),
    ("accept entry", ANY, STATES, a_change(b"e" * 32, 1), "feed.md 4: entityHash = entry hash"),
    ("reject chain", ANY, WHOLE, a_chain(REJECTED), "feed.md 4: again for REJECTED"),
    ("reject chain", ANY, STATES, a_change(b"c" * 32, 2), "feed.md 4: entityHash = chainIDHash"),
    ("reject entry", ANY, WHOLE, an_entry(REJECTED), "feed.md 4: again for REJECTED"),
    ("reject entry", ANY, STATES, a_change(b"e" * 32, 2), "feed.md 4: entityHash = entry hash"),
    ("accept reveal", {NEVER, ONCE}, WHOLE, NO_MEMBER, "feed.md 4: no member; tcp-protobuf-once"),
    ("accept reveal", {ALWAYS}, WHOLE, a_reveal(1), "feed.md 4: always; replay-large-always"),
    ("accept reveal", ANY, STATES, a_change(ENTRY.hash(), 1), "tcp-protobuf-always-statechange"),
    ("reject reveal", {NEVER, ONCE}, WHOLE, NO_MEMBER, "factomd, mapStateChangeEvent: any state"),
    ("reject reveal", {ALWAYS}, WHOLE, a_reveal(2), "feed.md 4: always: content at each state"),
    ("reject reveal", ANY, STATES, a_change(ENTRY.hash(), 2), "feed.md 4: entityHash = entry hash"),
    ("block", ANY, BOTH, a_block(), "feed.md 4: live blocks carry no entries"),
    ("anchor", ANY, BOTH, AN_ANCHOR, "feed.md 4; times as factomd's mapDirectoryBlockInfo"),
    ("replay", {NEVER, ONCE}, BOTH, a_block(entries=True), "feed.md 4; replay-from-height"),
    ("replay", {ALWAYS}, BOTH, a_block(entries=True, content=True), "feed.md 4; replay-large-*"),
    ("new block", ANY, BOTH, A_NEW_BLOCK, "feed.md 4: NewBlockEvent(height)"),
    ("new minute", ANY, BOTH, A_NEW_MINUTE, "feed.md 4: NewMinuteEvent(minute, height)"),
    ("info", ANY, BOTH, AN_INFO, "feed.md 4: NodeMessage; factomd NodeInfoMessageF"),
    ("error", ANY, BOTH, AN_ERROR, "feed.md 4: GENERAL (errors); factomd NodeErrorMessage"),
]
ALWAYS_SENT = {"new block", "new minute", "info", "error"}
ALWAYS_LIVE = {"info", "error"}
LIVE, REPLAY_BOOT = pb.EventSource.LIVE, pb.EventSource.REPLAY_BOOT


def emitted(
    operation: str, config: LiveFeedConfig, state: NodeState | None
) -> list[pb.FactomEvent]:
    outbox, service = Outbox(config), EventService()
    service.config_sender(state, outbox)
    OPERATIONS[operation](service)
    return outbox.events


@pytest.mark.parametrize(
    ("operation", "broadcasts", "changes", "expected", "source"),
    WHAT,
    ids=[f"{row[0]}-{sorted(b.name.lower() for b in row[1])}-{sorted(row[2])}" for row in WHAT],
)
@pytest.mark.parametrize("replays", [False, True])
@pytest.mark.parametrize("leads", [False, True])
def test_what_is_sent(
    operation: str,
    broadcasts: set[Broadcast],
    changes: set[bool],
    expected: pb.FactomEvent | None,
    source: str,
    replays: bool,
    leads: bool,
) -> None:
    state = NodeState(IDENTITY, run_leader=leads)
    for broadcast, change in product(broadcasts, changes):
        config = LiveFeedConfig(
            enabled=True,
            broadcast_content=broadcast,
            send_state_change=change,
            replay_during_startup=replays,
        )
        events = emitted(operation, config, state)
        # feed.md 4: not leader and no replay at startup: only ProcessListEvent and NodeMessage.
        if expected is None or not (leads or replays or operation in ALWAYS_SENT):
            assert events == [], source
            continue
        whole = pb.FactomEvent.FromString(expected.SerializeToString())
        whole.identityChainID = IDENTITY
        # factomd, GetStreamSource: live while it leads; what speaks of now is live, a replay never.
        live = (leads or operation in ALWAYS_LIVE) and operation != "replay"
        whole.eventSource = LIVE if live else REPLAY_BOOT
        assert events == [whole], source


def test_a_record_without_hashes_is_sent_with_zeros_as_by_a_node() -> None:
    """Source: factomd, DirBlockInfo.Init: what is nil becomes the zero hash."""
    outbox, service = Outbox(LiveFeedConfig(enabled=True)), EventService()
    service.config_sender(NodeState(IDENTITY, run_leader=True), outbox)
    service.emit_directory_block_anchor_event(AnchorInfo(b"h", b"m", 7, MS))
    (event,) = outbox.events
    sent = event.directoryBlockAnchor
    assert sent.btcTxHash == sent.btcBlockHash == sent.ethereumAnchorRecordEntryHash == bytes(32)


def test_the_table_has_every_setting_of_every_operation_once() -> None:
    rows = [(row[0], *pair) for row in WHAT for pair in product(row[1], row[2])]
    assert sorted(rows) == sorted(product(OPERATIONS, ANY, BOTH))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_node_that_stops_sends_nothing(operation: str) -> None:
    """Source: factomd, Send: nothing is queued above run state Running."""
    config = LiveFeedConfig(enabled=True, replay_during_startup=True)
    assert emitted(operation, config, NodeState(IDENTITY, run_leader=True, stopping=True)) == []


@pytest.mark.parametrize("operation", sorted(OPERATIONS.keys() - ALWAYS_LIVE - {"replay"}))
def test_without_a_state_the_source_is_minus_one(operation: str) -> None:
    """Source: feed.md 4: -1 when the node has no state."""
    events = emitted(operation, LiveFeedConfig(enabled=True), None)
    assert [(event.eventSource, event.identityChainID) for event in events] == [(-1, b"")]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_service_that_is_not_configured_or_switched_off_sends_nothing(operation: str) -> None:
    """Source: factomd, each Emit: no sender, no event; the state makes one only when enabled."""
    service = EventService()
    OPERATIONS[operation](service)
    assert service.config_service(NodeState(IDENTITY, run_leader=True), LiveFeedConfig()) is None
    OPERATIONS[operation](service)


def test_a_service_configured_from_settings_queues_for_the_sender_it_returns() -> None:
    service = EventService()
    sender = service.config_service(
        NodeState(IDENTITY), LiveFeedConfig(enabled=True), queue_events=1
    )
    assert sender is not None
    for _ in range(3):
        service.emit_process_list_event_new_block(1)
    assert (sender.waiting, sender.counters.dropped) == (1, 2)


@pytest.mark.parametrize(
    ("text", "values", "sent"),
    [
        ("Node %s startup complete", ("FNode0",), "Node FNode0 startup complete"),
        # Source: factomd, NodeErrorMessage with the text and value of its ValidatorLoop.
        ("A panic state occurred.", ("gone",), "A panic state occurred.%!(EXTRA str=gone)"),
        ("50 % down", (), "50 % down"),
        ("100%", (), "100%"),
        ("%s of %d", ("one",), "one of %!d(MISSING)"),
        ("at 100%", (3,), "at 100%!(NOVERB)%!(EXTRA int=3)"),
        ("no file \udcff", (), "no file ?"),
    ],
)
def test_no_text_of_a_node_message_is_an_error(
    text: str, values: tuple[object, ...], sent: str
) -> None:
    outbox, service = Outbox(LiveFeedConfig(enabled=True)), EventService()
    service.config_sender(NodeState(IDENTITY), outbox)
    service.emit_node_info_message(pb.NodeMessageCode.GENERAL, text, *values)
    service.emit_node_error_message(pb.NodeMessageCode.GENERAL, text, *values)
    assert [event.nodeMessage.messageText for event in outbox.events] == [sent, sent]
    assert [event.nodeMessage.level for event in outbox.events] == [pb.Level.INFO, pb.Level.ERROR]


@pytest.mark.parametrize("given", [123_000, 123_000_000])
@pytest.mark.parametrize(("quirk", "sent"), [(True, 123_000), (False, 123_000_000)])
def test_the_timestamp_quirk_is_a_switch(quirk: bool, given: int, sent: int) -> None:
    """Source: feed.md 4, quirks: EntryReveal and factoid transactions; commits are right."""
    outbox = Outbox(LiveFeedConfig(enabled=True))
    service = EventService(timestamp_quirk=quirk)
    service.config_sender(NodeState(IDENTITY, run_leader=True), outbox)
    at = {"seconds": 5, "nanos": given}
    factoid = factoidBlock_pb2.FactoidBlock(transactions=[{"timestamp": at}, {}])
    service.emit_directory_block_commit_event(replace(BLOCK, factoid_block=factoid))
    service.emit_registration_event(REVEAL)
    service.emit_registration_event(COMMIT)
    block, reveal, commit = outbox.events
    first, second = block.directoryBlockCommit.factoidBlock.transactions
    assert (first.timestamp.seconds, first.timestamp.nanos) == (5, sent)
    assert not second.HasField("timestamp")
    assert reveal.entryReveal.timestamp.nanos == sent
    assert commit.entryCommit.timestamp.nanos == 123_000_000
    assert factoid.transactions[0].timestamp.nanos == given, "the node's own block was changed"
