"""Finds a subject in the journal: what arrived, when, from whom, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from bridge.asking.sightings import Sighting, Sightings, state_of
from bridge.asking.subject import Subject
from bridge.core.asjson import rfc3339
from bridge.core.decode import decode
from bridge.core.framing import frame, split_frames
from bridge.core.render import MESSAGE_TYPES, Renderer
from bridge.errors import DecodeError
from bridge.journal.reading import JournalFile
from bridge.model import Group, Kind, RecordType, Run
from bridge.pb.bridge.v1.block_receipt_pb2 import BlockReceipt
from bridge.pb.bridge.v1.gap_alert_pb2 import GapAlert

__all__ = ["Account", "account", "recorded"]

Told = Callable[[int], None]
"""Is told how far a search has come: the number of a record."""

_OWN_WORDS = tuple(kind.encode() + b"\0" for kind in (Kind.BLOCK_RECEIPT, Kind.GAP_ALERT))


class Account:
    """The latest that the bridge itself said of some heights."""

    def __init__(self) -> None:
        self.receipts: dict[int, BlockReceipt] = {}
        self.alerts: dict[str, GapAlert] = {}
        """By the gap's id."""

    def add(self, kind: Kind, member: Any) -> None:
        """Take what was said later than what is there."""
        if kind is Kind.BLOCK_RECEIPT:
            self.receipts[member.height] = member
        elif kind is Kind.GAP_ALERT:
            self.alerts[member.gap_id] = member

    def fill(self, other: Account) -> None:
        """Take from `other` what is not here."""
        self.receipts = other.receipts | self.receipts
        self.alerts = other.alerts | self.alerts


class _Record(NamedTuple):
    seq: int
    run: Run
    type: int
    payload: bytes


def recorded(file: JournalFile, subject: Subject, renderer: Renderer, told: Told) -> Sightings:
    """Return what the journal holds of `subject`."""
    found, peer = Sightings(), subject.peer
    needles = subject.needles
    if needles and peer is not None:
        needles = (*needles, peer.encode())
    for group in file.search(needles, told):
        for record in _records(group):
            fetched = record.run.peer == peer
            if not fetched and not subject.within(record.payload):
                continue
            seen = _seen(record, subject, renderer, fetched=fetched)
            if seen is not None:
                found.add(seen)
    return found


def _records(group: Group) -> Iterator[_Record]:
    seq = group.first
    for run in group.runs:
        for type_, payload in split_frames(run.frames):
            yield _Record(seq, run, type_, payload)
            seq += 1


def _seen(
    record: _Record, subject: Subject, renderer: Renderer, *, fetched: bool
) -> Sighting | None:
    try:
        read = _read(record)
        if read is None:
            return None
        kind, member = read
        roles = subject.roles(kind, member) or (("fetched for it",) if fetched else ())
        state = state_of(kind, member) if roles else ""
    except DecodeError as error:
        # It is set aside, and these are its bytes. Of a height they say nothing.
        kind, state = Kind.DEAD_LETTER, error.reason
        roles = ("bytes",) if subject.hash is not None else ()
    if not roles:
        return None
    seq, run, type_, payload = record
    alone = Run(run.peer, run.received_ns, 1, frame(payload, type_))
    rendered = renderer.render(Group(seq, seq, (alone,)))
    attributes, left_out = {}, "".join(rendered.left_out)
    for message in rendered.messages:
        kind, attributes = message.kind, message.attributes
    seconds, nanos = divmod(run.received_ns, 1_000_000_000)
    received = rfc3339(seconds, nanos // 1000 * 1000) or ""
    return Sighting(seq, received, run.peer, kind, roles, state, attributes, left_out)


def _read(record: _Record) -> tuple[Kind, Any] | None:
    """Return kind and message of `record`, or None where it has none. Raises: DecodeError."""
    if record.type == RecordType.FEED:
        event = decode(record.payload)
        return None if event is None else (event.kind, event.member)
    if record.type == RecordType.OWN:
        name, _, data = record.payload.partition(b"\0")
        kind = Kind(name.decode())
        return kind, MESSAGE_TYPES[kind].FromString(data)
    return None


def account(file: JournalFile, heights: Sequence[int], told: Told) -> Account:
    """Return what the journal holds of the bridge's own words about `heights`."""
    found = Account()
    subjects = [Subject(height=height) for height in heights]
    for group in file.search(_OWN_WORDS, told):
        for record in _records(group):
            if record.type == RecordType.OWN and record.payload.startswith(_OWN_WORDS):
                read = _read(record)
                assert read is not None
                if any(subject.roles(*read) for subject in subjects):
                    found.add(*read)
    return found
