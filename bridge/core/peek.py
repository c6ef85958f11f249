"""Tells what the tracker needs of a payload, at least cost: it looks at every event of the feed.

A commit as nodes write it is never parsed: its identity is a hash over a slice. A reveal is parsed,
because that takes less than finding its hash in Python. All others that are tracked are rare, and
what has another shape (JSON, say) is too: those are decoded as for a sink.
"""

from __future__ import annotations

import hashlib
from types import ModuleType
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError as ProtobufError

from bridge.core.decode import Event, decode
from bridge.core.native import native
from bridge.core.rebuild import commits
from bridge.errors import DecodeError
from bridge.model import Kind
from bridge.pb.eventmessages.factomEvents_pb2 import (
    ChainCommit,
    DirectoryBlockCommit,
    EntryCommit,
    EntryCreditBlock,
    FactomEvent,
)

__all__ = [
    "Block",
    "Peeked",
    "Told",
    "commit_identities",
    "commit_identity",
    "peek",
    "reveal_identity",
    "take_identities",
]

_SOURCE, _IDENTITY = 0x08, 0x1A
_CHAIN_COMMIT, _ENTRY_COMMIT, _ENTRY_REVEAL = 0x22, 0x2A, 0x32
_COMMITS = bytes((_CHAIN_COMMIT, _ENTRY_COMMIT))
_UNTRACKED = b"\x3a\x52\x5a"
"""Tags of members: state change, node message, anchor."""
_STATE = b"\x08"
"""Tag of a commit's entity state, which nodes write first."""

_sha256 = hashlib.sha256
_from_protobuf = FactomEvent.FromString


class Block(NamedTuple):
    """A directory block."""

    message: DirectoryBlockCommit
    source: int
    """`eventSource`: 0 live, 1 replayed, -1 when the node had no state."""


class Told(NamedTuple):
    """The node works on the block of this height: a new block, or a minute of it, began."""

    height: int


Peeked = int | Block | Told
"""An int is the identity, of 8 bytes, of a commit or a reveal."""


def peek(payload: bytes) -> Peeked | None:
    """Return what `payload` holds for the tracker; None where that is nothing.

    What a sink would dead-letter is nothing too, but for a commit that is damaged within: it gives
    an identity that no commit has.
    """
    try:
        at = 2 if payload[0] == _SOURCE and payload[1] < 0x80 else 0
        if payload[at] == _IDENTITY and payload[at + 1] < 0x80:
            at += 2 + payload[at + 1]
            if at == len(payload):
                return None
        tag, size = payload[at], payload[at + 1]
        at += 2
        if size >= 0x80:
            size += (payload[at] - 1) << 7
            if payload[at] >= 0x80:
                return _decoded(payload)
            at += 1
        if at + size != len(payload):
            return _decoded(payload)
        if tag in _COMMITS:
            return _commit(tag, payload, at)
    except IndexError:
        return _decoded(payload)
    if tag == _ENTRY_REVEAL:
        try:
            return reveal_identity(_from_protobuf(payload).entryReveal.entry.hash)
        except ProtobufError:
            return None
    return None if tag in _UNTRACKED else _decoded(payload)


def take_identities(frames: bytes, at: int, out: list[int], heights: list[int]) -> int:
    """Append to `out` the identities of the commits and reveals that stand in `frames` from `at` on.

    And to `heights` those of which a block or minutes are told: of equal ones in a row one. Returns the
    place of the first record that is to be peeked at: where there is no compiled part that is `at`
    itself.
    """
    if native is None:
        return at
    found: int = native.identities(frames, at, out, heights)
    return found


def commit_identities(block: EntryCreditBlock, compiled: ModuleType | None = native) -> list[int]:
    """Return the identity of each commit of a block, as `commit_identity`, in their order."""
    if compiled is not None:
        found: list[int] | None = compiled.credit_identities(block.SerializeToString())
        if found is not None:
            return found
    return list(map(commit_identity, commits(block)))


def commit_identity(member: ChainCommit | EntryCommit) -> int:
    """Return what tells a commit from every other, whatever its state."""
    tag = _CHAIN_COMMIT if isinstance(member, ChainCommit) else _ENTRY_COMMIT
    return _commit(tag, member.SerializeToString(), 0)


def reveal_identity(hash_: bytes) -> int:
    """Return what tells the reveal of the entry with this hash from every other."""
    return int.from_bytes(hash_[:8], "big")


def _commit(tag: int, data: bytes, at: int) -> int:
    """Return the identity of the commit that begins at `at` and is the end of `data`."""
    if data.startswith(_STATE, at):
        at += 1
        while data[at] >= 0x80:
            at += 1
        at += 1
    return int.from_bytes(_sha256(data[at:]).digest()[:8], "big") ^ tag


def _decoded(payload: bytes) -> Peeked | None:
    try:
        event = decode(payload)
    except DecodeError:
        return None
    return None if event is None else _of(event)


def _of(event: Event) -> Peeked | None:
    member: Any = event.member
    match event.kind:
        case Kind.CHAIN_COMMIT | Kind.ENTRY_COMMIT:
            return commit_identity(member)
        case Kind.ENTRY_REVEAL:
            return reveal_identity(member.entry.hash)
        case Kind.DIRECTORY_BLOCK_COMMIT:
            return Block(member, event.source)
        case Kind.PROCESS_LIST_EVENT if member.HasField("newBlockEvent"):
            return Told(member.newBlockEvent.newBlockHeight)
        case Kind.PROCESS_LIST_EVENT if member.HasField("newMinuteEvent"):
            return Told(member.newMinuteEvent.blockHeight)
    return None
