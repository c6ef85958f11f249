"""What the attributes of a message are taken from, kind by kind (`docs/contracts.md`).

Two quirks of the node are corrected here and only here, never in the data: the nanoseconds of an
EntryReveal are 1,000 times too small (factomd v6.5.2 to v6.17.1: milliseconds times 1,000), and a
StateChange's height is always 0 and so says nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from bridge.model import Kind
from bridge.pb.eventmessages.factomEvents_pb2 import EntityState

__all__ = ["FACTS", "STATE_NAMES", "Facts", "Reading"]

Facts = tuple[str | None, str, int, int, str, tuple[str, ...]]
"""Key (None: one partition); CloudEvents subject; seconds and nanoseconds of the event's own time,
0 where it has none; last part of the NATS subject; values of the extensions."""


class Reading(NamedTuple):
    """How the facts of one kind are read from its message."""

    extensions: tuple[str, ...]
    """Names of the CloudEvents extensions that the kind has beside those that all have."""
    read: Callable[[Any], Facts]


STATE_NAMES = tuple(EntityState.keys())
"""Names of the states that are known, by their numbers."""

_STATES = {number: (name,) for name, number in EntityState.items()}


def _hex(hash_: bytes) -> str:
    """Hashes have 32 bytes; a made-up one must not make subjects and headers without bound."""
    return hash_[:64].hex()


def _state(number: int) -> tuple[str]:
    return _STATES.get(number) or (str(number),)


def _chain_commit(member: Any) -> Facts:
    key, at = _hex(member.chainIDHash), member.timestamp
    return key, key, at.seconds, at.nanos, "", _state(member.entityState)


def _entry_commit(member: Any) -> Facts:
    key, at = _hex(member.entryHash), member.timestamp
    return key, key, at.seconds, at.nanos, "", _state(member.entityState)


def _entry_reveal(member: Any) -> Facts:
    chain, at = _hex(member.entry.chainID), member.timestamp
    nanos = at.nanos
    if nanos < 1_000_000:
        nanos *= 1000
    return chain, chain, at.seconds, nanos, chain, (*_state(member.entityState), chain)


def _state_change(member: Any) -> Facts:
    key = _hex(member.entityHash)
    return key, key, 0, 0, "", _state(member.entityState)


def _directory_block_commit(member: Any) -> Facts:
    header = member.directoryBlock.header
    height, at = str(header.blockHeight), header.timestamp
    return None, height, at.seconds, at.nanos, "", (height, _detail(member))


def _detail(member: Any) -> str:
    if not member.entryBlocks and not member.entryBlockEntries:
        return "summary"
    for entry in member.entryBlockEntries:
        if entry.content or entry.externalIDs:
            return "full"
    return "hashes"


def _directory_block_anchor(member: Any) -> Facts:
    height, at = str(member.blockHeight), member.timestamp
    return height, height, at.seconds, at.nanos, "", (height,)


def _process_list_event(member: Any) -> Facts:
    if member.HasField("newMinuteEvent"):
        height = str(member.newMinuteEvent.blockHeight)
    else:
        height = str(member.newBlockEvent.newBlockHeight)
    return None, height, 0, 0, "", (height,)


def _gap_alert(member: Any) -> Facts:
    at = member.changed_at
    status = member.Status.Name(member.status).removeprefix("STATUS_").lower()
    return member.gap_id, member.gap_id, at.seconds, at.nanos, status, ()


def _block_receipt(member: Any) -> Facts:
    height = str(member.height)
    return height, height, 0, 0, "", (height,)


def _dead_letter(member: Any) -> Facts:
    at = member.received_at
    return member.reason, member.reason, at.seconds, at.nanos, member.reason, ()


_STATE, _HEIGHT = ("entitystate",), ("blockheight",)
FACTS: dict[Kind, Reading] = {
    Kind.CHAIN_COMMIT: Reading(_STATE, _chain_commit),
    Kind.ENTRY_COMMIT: Reading(_STATE, _entry_commit),
    Kind.ENTRY_REVEAL: Reading((*_STATE, "chainid"), _entry_reveal),
    Kind.STATE_CHANGE: Reading(_STATE, _state_change),
    Kind.DIRECTORY_BLOCK_COMMIT: Reading((*_HEIGHT, "blockdetail"), _directory_block_commit),
    Kind.DIRECTORY_BLOCK_ANCHOR: Reading(_HEIGHT, _directory_block_anchor),
    Kind.PROCESS_LIST_EVENT: Reading(_HEIGHT, _process_list_event),
    # A node message says nothing of itself: its key is the node that said it (`render`).
    Kind.NODE_MESSAGE: Reading((), lambda _: ("", "", 0, 0, "", ())),
    Kind.GAP_ALERT: Reading((), _gap_alert),
    Kind.BLOCK_RECEIPT: Reading(_HEIGHT, _block_receipt),
    Kind.DEAD_LETTER: Reading((), _dead_letter),
}
"""How to read each kind."""
