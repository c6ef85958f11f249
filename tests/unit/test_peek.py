"""`core.peek`: what the tracker needs of a payload, cheaply."""

from typing import Any

import pytest

from bridge.core.decode import decode
from bridge.core.peek import Block, Peeked, Told, commit_identity, peek, reveal_identity
from bridge.errors import DecodeError
from bridge.model import Kind
from bridge.pb.eventmessages.factomEvents_pb2 import (
    ChainCommit,
    DirectoryBlockCommit,
    EntryCommit,
    FactomEvent,
)
from tests.support.events import captures_found, recorded_payloads
from tests.support.go import go_json


def by_decoding(payload: bytes) -> Peeked | None:
    try:
        event = decode(payload)
    except DecodeError:
        return None
    if event is None:
        return None
    member: Any = event.member
    if event.kind in {Kind.CHAIN_COMMIT, Kind.ENTRY_COMMIT}:
        return commit_identity(member)
    if event.kind is Kind.ENTRY_REVEAL:
        return reveal_identity(member.entry.hash)
    if event.kind is Kind.DIRECTORY_BLOCK_COMMIT:
        return Block(member, event.source)
    if event.kind is Kind.PROCESS_LIST_EVENT:
        if member.HasField("newBlockEvent"):
            return Told(member.newBlockEvent.newBlockHeight)
        if member.HasField("newMinuteEvent"):
            return Told(member.newMinuteEvent.blockHeight)
    return None


def test_it_tells_of_every_recorded_event_what_decoding_tells() -> None:
    found = []
    for payload in recorded_payloads():
        found.append(peek(payload))
        assert found[-1] == by_decoding(payload)
    assert {type(each) for each in found} == {int, Block, Told, type(None)}
    sources = {each.source for each in found if isinstance(each, Block)}
    assert sources >= {0, 1}


def test_all_states_of_a_commit_are_one_and_two_commits_are_two() -> None:
    for _, capture in captures_found():
        by_identity: dict[object, set[bytes]] = {}
        for payload in capture.payloads():
            event = decode(payload)
            if event is not None and event.kind in {Kind.CHAIN_COMMIT, Kind.ENTRY_COMMIT}:
                member = type(event.member)()
                member.CopyFrom(event.member)
                member.ClearField("entityState")
                by_identity.setdefault(peek(payload), set()).add(member.SerializeToString())
        assert all(len(each) == 1 for each in by_identity.values())
        assert len(set.union(set(), *by_identity.values())) == len(by_identity)


def test_the_commit_in_a_block_is_the_commit_of_the_feed_whatever_its_encoding() -> None:
    commit = EntryCommit(entryHash=b"h" * 32, credits=1, signature=b"s" * 64)
    in_block = EntryCommit(entityState=3)  # type: ignore[arg-type]
    in_block.MergeFrom(commit)
    event = FactomEvent(identityChainID=b"i" * 32, entryCommit=commit)
    assert peek(event.SerializeToString()) == commit_identity(in_block)
    assert peek(go_json(event)) == commit_identity(in_block)


def test_a_chain_commit_and_an_entry_commit_of_the_same_bytes_are_two() -> None:
    assert commit_identity(ChainCommit()) != commit_identity(EntryCommit())


MEMBERS: list[dict[str, Any]] = [
    {"chainCommit": {}},
    {"chainCommit": {"entityState": 1, "weld": b"w" * 32}},
    {"entryCommit": {}},
    {"entryCommit": {"entityState": 1}},
    {"entryCommit": {"entityState": -1, "signature": b"s" * 300}},
    {"entryCommit": {"entityState": 300, "version": 2**31}},
    {"entryReveal": {}},
    {"entryReveal": {"entry": {"hash": b"short", "content": b"B" * 200}}},
    {"entryReveal": {"entry": {"hash": b"h" * 32, "content": b"B" * 20_000}}},
    {"entryReveal": {"entry": {"hash": b"h" * 32, "externalIDs": [b""] * 200}}},
    {"directoryBlockCommit": {"directoryBlock": {"header": {"blockHeight": 9}}}},
    {"processListEvent": {}},
    {"processListEvent": {"newBlockEvent": {"newBlockHeight": 7}}},
    {"processListEvent": {"newMinuteEvent": {"newMinute": 2, "blockHeight": 8}}},
    {"stateChange": {"entityHash": b"h" * 32}},
    {"nodeMessage": {"messageText": "words" * 100}},
    {"directoryBlockAnchor": {"blockHeight": 3}},
    {},
]
ENVELOPES: list[dict[str, Any]] = [
    {},
    {"eventSource": 1},
    {"eventSource": -1},
    {"eventSource": 300},
    {"factomNodeName": "node"},
    {"factomNodeName": "n" * 200},
    {"identityChainID": b"i" * 32},
    {"eventSource": 1, "factomNodeName": "node", "identityChainID": b"i" * 32},
    {"identityChainID": b"short"},
    {"identityChainID": b"long" * 40},
]


@pytest.mark.parametrize("envelope", ENVELOPES)
@pytest.mark.parametrize("member", MEMBERS)
def test_it_sees_through_every_envelope(
    envelope: dict[str, object], member: dict[str, object]
) -> None:
    event = FactomEvent(**envelope, **member)  # type: ignore[arg-type]
    for payload in (event.SerializeToString(), go_json(event)):
        assert peek(payload) == by_decoding(payload)


def test_of_two_members_the_last_counts_as_for_the_decoder() -> None:
    block = FactomEvent(directoryBlockCommit=DirectoryBlockCommit()).SerializeToString()
    commit = FactomEvent(entryCommit=EntryCommit(credits=1)).SerializeToString()
    for payload in (block + commit, commit + block, commit + commit):
        assert peek(payload) == by_decoding(payload)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x08",
        b"\x08\xff",
        b"\x12",
        b"\x12\x05ab",
        b"\x1a",
        b"\x1a\x20short",
        b"\x1a\x00",
        b"\x42\xff",
        b"\x2a",
        b"\x2a\x80",
        b"\x2a\x02\x08\x81",
        b"\x2a\x05short-ed",
        b"\x32\x02\x12\x05",
        b"\x32\x80\x80\x80\x01",
        b"\x62\x00",
        b"{",
        b'{"directoryBlockCommit":1}',
        b'{"Event":{"directoryBlockCommit":[]}}',
    ],
)
def test_what_is_no_event_is_nothing(payload: bytes) -> None:
    assert by_decoding(payload) is None
    assert peek(payload) is None


def test_a_reveal_that_is_cut_or_damaged_is_nothing_though_its_hash_is_there() -> None:
    event = FactomEvent(
        identityChainID=b"i" * 32,
        entryReveal={"entry": {"hash": b"h" * 32, "content": b"c" * 90}},
    )
    payload = event.SerializeToString()
    damaged = payload.replace(b"\x1a\x5a", b"\x1a\x5b")
    assert damaged != payload
    assert peek(payload) == reveal_identity(b"h" * 32)
    assert peek(damaged) is None
    assert peek(payload[:-1]) is None
