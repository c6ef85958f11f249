"""Every event of every recording, told and sent again: the same bytes, datagrams, connections."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridge.core.binary.commits import ChainCommit, EntryCommit
from bridge.core.binary.entries import Entry
from bridge.core.binary.wire import quirky_milliseconds
from bridge.emitter.config import LiveFeedConfig
from bridge.emitter.inputs import DirectoryBlockState, Entity, EntryReveal
from bridge.emitter.sender import Sender
from bridge.emitter.service import EventService, NodeState
from bridge.pb.eventmessages import factomEvents_pb2 as pb
from tests.support.captures import CAPTURES, Capture
from tests.support.events import captures_found
from tests.unit.emitter.network import Outbox, Weather, event_of, frames, running, settled

NIL_MEMBER = b'{"Event":{}}'
FOUND = dict(captures_found())
OF_NODES = [name for name in FOUND if not name.startswith("allfields")]
LARGEST_DATAGRAM = 65_507

every_recording = pytest.mark.parametrize("name", FOUND)


def as_sent(payload: bytes) -> bytes:
    """A member that is nil in Go (made-up events, JSON only) does not survive protobuf."""
    return b'{"Event":null}' if payload == NIL_MEMBER else payload


def config_of(capture: Capture) -> LiveFeedConfig:
    meta = json.loads((capture.folder / "meta.json").read_text())
    given = meta["settings"].get("flags", []) + meta["settings"].get("extra_flags", [])
    flags = dict(flag.removeprefix("-").partition("=")[::2] for flag in given)
    known = {name: value for name, value in flags.items() if name.startswith(("event", "pers"))}
    form = "json" if "json" in capture.name else "protobuf"
    return LiveFeedConfig.parse(
        enablelivefeedapi=True,
        eventreceiverprotocol="udp" if capture.is_udp else "tcp",
        **{"eventformat": form, **known},
    )


@every_recording
async def test_every_event_decoded_and_sent_again_is_the_same_bytes(name: str) -> None:
    payloads = FOUND[name].payloads()
    weather = Weather((0, 1), udp=FOUND[name].is_udp)
    config = config_of(FOUND[name])
    sender = Sender(config, clock=weather.clock, sleep=weather.sleep, dial=weather.dial)
    async with running(sender):
        await sender.feed(map(event_of, payloads))
        await sender.drain()
    assert weather.connections[0].stream == frames([as_sent(payload) for payload in payloads])


def datagrams_of(capture: Capture) -> list[list[bytes]]:
    """The recorded datagrams of each source port, in the order of the first ones."""
    ports: dict[int, list[bytes]] = {}
    for port, datagram in capture.datagrams():
        ports.setdefault(port, []).append(datagram)
    return list(ports.values())


def payloads_begun(datagrams: list[bytes]) -> list[bytes]:
    """The events of one port; what was too large to come whole is filled up with zeros."""
    found, at = [], 0
    while at < len(datagrams):
        assert datagrams[at] == b"\x01"
        size = int.from_bytes(datagrams[at + 1][:4], "little")
        payload = datagrams[at + 1][4:]
        at += 2
        if len(payload) < size and at < len(datagrams) and datagrams[at] != b"\x01":
            payload += datagrams[at]
            at += 1
        found.append(payload + bytes(size - len(payload)))
    return found


@pytest.mark.parametrize("name", [name for name in FOUND if FOUND[name].is_udp])
async def test_over_udp_the_datagrams_are_the_recorded_ones(name: str) -> None:
    recorded = datagrams_of(FOUND[name])
    begun = [payloads_begun(port) for port in recorded]
    weather = Weather((0, 10_000), udp=True)
    config = config_of(FOUND[name])
    sender = Sender(config, clock=weather.clock, sleep=weather.sleep, dial=weather.dial)
    events: list[Any] = []
    for payload in (payload for port in begun for payload in port):
        # What the node tried again, on a new port, is one event of the queue.
        if not (len(payload) > LARGEST_DATAGRAM and events and events[-1] == payload):
            large = len(payload) > LARGEST_DATAGRAM
            events.append(payload if large else event_of(payload))
    async with running(sender):
        await sender.feed(events)
        for _ in range(3):
            await settled()
            await weather.pass_to(weather.now + 10)
    sent = [connection.writes for connection in weather.connections if connection.writes]
    expected = [[NULL_MEMBER if d == NIL_DATAGRAM else d for d in port] for port in recorded]
    # The recording ends before the third try.
    assert sent[: len(expected)] == expected
    assert len(sent) - len(expected) <= 1


NIL_DATAGRAM = len(NIL_MEMBER).to_bytes(4, "little") + NIL_MEMBER
NULL_MEMBER = len(as_sent(NIL_MEMBER)).to_bytes(4, "little") + as_sent(NIL_MEMBER)


class Told:
    """What the node of a recording was told, guessed from what it sent."""

    def __init__(self, service: EventService, state: NodeState) -> None:
        self._service, self._state = service, state
        self._by_hash: dict[bytes, Entity] = {}
        self._reveals: list[EntryReveal] = []

    def tell(self, event: pb.FactomEvent) -> None:
        name = event.WhichOneof("event")
        if event.eventSource == pb.EventSource.LIVE and name != "nodeMessage":
            self._state.run_leader = True
        match name:
            case None:
                self._service.emit_state_change_event(self._reveals[0], pb.EntityState.ACCEPTED)
            case "chainCommit":
                chain = ChainCommit.of_message(event.chainCommit)
                self._entity(chain.chain_id_hash, chain, event.chainCommit.entityState)
            case "entryCommit":
                commit = EntryCommit.of_message(event.entryCommit)
                self._entity(commit.entry_hash, commit, event.entryCommit.entityState)
            case "entryReveal":
                told = event.entryReveal
                entry = Entry.of_message(told.entry)
                reveal = EntryReveal(entry, quirky_milliseconds(told.timestamp))
                self._reveals.append(reveal)
                self._entity(entry.hash(), reveal, told.entityState)
            case "stateChange":
                changed = event.stateChange
                entity = self._by_hash[changed.entityHash]
                self._service.emit_state_change_event(entity, changed.entityState)
            case "directoryBlockCommit":
                self._block(event)
            case "processListEvent":
                begun = event.processListEvent
                if begun.HasField("newBlockEvent"):
                    height = begun.newBlockEvent.newBlockHeight
                    self._service.emit_process_list_event_new_block(height)
                else:
                    minute = begun.newMinuteEvent
                    self._service.emit_process_list_event_new_minute(
                        minute.newMinute, minute.blockHeight
                    )
            case "nodeMessage":
                message = event.nodeMessage
                self._service.emit_node_info_message(message.messageCode, message.messageText)
            case _:
                raise AssertionError(name)

    def _entity(self, hash_: bytes, entity: Entity, state: pb.EntityState) -> None:
        self._by_hash[hash_] = entity
        if state == pb.EntityState.REQUESTED:
            self._service.emit_registration_event(entity)
        else:
            self._service.emit_state_change_event(entity, state)

    def _block(self, event: pb.FactomEvent) -> None:
        block = event.directoryBlockCommit
        state = DirectoryBlockState(
            block.directoryBlock,
            block.adminBlock,
            block.factoidBlock,
            block.entryCreditBlock,
            tuple(block.entryBlocks),
            tuple(block.entryBlockEntries),
        )
        if event.eventSource == pb.EventSource.REPLAY_BOOT and self._state.run_leader:
            self._service.emit_replay_directory_block_commit(state)
        else:
            self._service.emit_directory_block_commit_event(state)


@pytest.mark.parametrize("name", OF_NODES)
async def test_the_service_told_what_a_node_was_told_sends_what_the_node_sent(name: str) -> None:
    capture = FOUND[name]
    config = config_of(capture)
    events = [event_of(payload) for payload in capture.payloads()]
    outbox, service = Outbox(config), EventService()
    state = NodeState(events[0].identityChainID)
    service.config_sender(state, outbox)
    told = Told(service, state)
    for event in events:
        told.tell(event)
    assert len(outbox.events) == len(events)
    for sent, event in zip(outbox.events, events, strict=True):
        assert sent == event


def test_all_recordings_are_found_where_the_shared_folder_is() -> None:
    small_only = len(FOUND) < len(CAPTURES)
    assert len(FOUND) >= (10 if small_only else 21)
