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

__all__ = ["FACTS", "Facts"]

Pairs = tuple[tuple[str, str], ...]


class Facts(NamedTuple):
    """The key (None: one partition), the CloudEvents subject, the event's own time, and more."""

    key: str | None
    subject: str
    seconds: int = 0
    """Of the event's own time since 1970; 0 where it has none."""
    nanos: int = 0
    token: str = ""
    extensions: Pairs = ()


_STATES = {number: (("entitystate", name),) for name, number in EntityState.items()}


def _hex(hash_: bytes) -> str:
    """Hashes have 32 bytes; a made-up one must not make subjects and headers without bound."""
    return hash_[:64].hex()


def _state(number: int) -> Pairs:
    return _STATES.get(number) or (("entitystate", str(number)),)


def _chain_commit(member: Any) -> Facts:
    key = _hex(member.chainIDHash)
    at = member.timestamp
    return Facts(key, key, at.seconds, at.nanos, "", _state(member.entityState))


def _entry_commit(member: Any) -> Facts:
    key = _hex(member.entryHash)
    at = member.timestamp
    return Facts(key, key, at.seconds, at.nanos, "", _state(member.entityState))


def _entry_reveal(member: Any) -> Facts:
    chain = _hex(member.entry.chainID)
    at = member.timestamp
    nanos = at.nanos * 1000 if at.nanos < 1_000_000 else at.nanos
    return Facts(
        chain, chain, at.seconds, nanos, chain, (*_state(member.entityState), ("chainid", chain))
    )


def _state_change(member: Any) -> Facts:
    key = _hex(member.entityHash)
    return Facts(key, key, extensions=_state(member.entityState))


def _directory_block_commit(member: Any) -> Facts:
    header = member.directoryBlock.header
    height = str(header.blockHeight)
    at = header.timestamp
    extensions = (("blockheight", height), ("blockdetail", _detail(member)))
    return Facts(None, height, at.seconds, at.nanos, "", extensions)


def _detail(member: Any) -> str:
    if not member.entryBlocks and not member.entryBlockEntries:
        return "summary"
    for entry in member.entryBlockEntries:
        if entry.content or entry.externalIDs:
            return "full"
    return "hashes"


def _directory_block_anchor(member: Any) -> Facts:
    height = str(member.blockHeight)
    at = member.timestamp
    return Facts(height, height, at.seconds, at.nanos, "", (("blockheight", height),))


def _process_list_event(member: Any) -> Facts:
    if member.HasField("newMinuteEvent"):
        height = str(member.newMinuteEvent.blockHeight)
    else:
        height = str(member.newBlockEvent.newBlockHeight)
    return Facts(None, height, extensions=(("blockheight", height),))


def _gap_alert(member: Any) -> Facts:
    at = member.changed_at
    status = member.Status.Name(member.status).removeprefix("STATUS_").lower()
    return Facts(member.gap_id, member.gap_id, at.seconds, at.nanos, status)


def _block_receipt(member: Any) -> Facts:
    height = str(member.height)
    return Facts(height, height, extensions=(("blockheight", height),))


def _dead_letter(member: Any) -> Facts:
    at = member.received_at
    return Facts(member.reason, member.reason, at.seconds, at.nanos, member.reason)


FACTS: dict[Kind, Callable[[Any], Facts]] = {
    Kind.CHAIN_COMMIT: _chain_commit,
    Kind.ENTRY_COMMIT: _entry_commit,
    Kind.ENTRY_REVEAL: _entry_reveal,
    Kind.STATE_CHANGE: _state_change,
    Kind.DIRECTORY_BLOCK_COMMIT: _directory_block_commit,
    Kind.DIRECTORY_BLOCK_ANCHOR: _directory_block_anchor,
    Kind.PROCESS_LIST_EVENT: _process_list_event,
    Kind.GAP_ALERT: _gap_alert,
    Kind.BLOCK_RECEIPT: _block_receipt,
    Kind.DEAD_LETTER: _dead_letter,
}
"""How to read each kind. A node message's facts are its node's identity: see `render`."""
