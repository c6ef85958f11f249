"""What a journal holds, read from its files as a stranger would: SQL, and frames as on the wire."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from bridge.pb.bridge.v1.gap_alert_pb2 import GapAlert
from bridge.pb.eventmessages.factomEvents_pb2 import FactomEvent

__all__ = ["JournalFile", "Stored", "event_id", "payloads_of"]

_ROWS = (
    "SELECT first, count, head, frames, segment, at, size"
    " FROM groups LEFT JOIN places USING (first) WHERE first > ? ORDER BY first"
)
_HEADER = struct.Struct("<Bi")
_FEED, _OWN = 1, 3


def payloads_of(frames: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield first byte and payload of each frame."""
    at = 0
    while at < len(frames):
        type_, size = _HEADER.unpack_from(frames, at)
        at += _HEADER.size + size
        yield type_, frames[at - size : at]


def event_id(payload: bytes) -> tuple[str, str]:
    """Return kind and id of a protobuf event of the feed, as `contracts.md` defines them."""
    event = FactomEvent.FromString(payload)
    name = event.WhichOneof("event")
    assert name is not None, "an event with no member has no message"
    kind = re.sub("[A-Z]", lambda capital: f"-{capital[0].lower()}", name)
    return kind, _id(kind, getattr(event, name).SerializeToString(deterministic=True))


def _id(kind: str, data: bytes) -> str:
    return hashlib.sha256(kind.encode() + b"\0" + data).hexdigest()[:32]


class Stored(NamedTuple):
    """One record, and the message that is to come of it."""

    seq: int
    is_of_feed: bool
    kind: str
    id: str


class JournalFile:
    """The journal in `folder`; the bridge may be running, stopped or killed."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "journal.db"

    def stored(self, after: int = 0) -> list[Stored]:
        """Return the records of the feed and of the bridge itself above number `after`."""
        found: list[Stored] = []
        for first, count, _, frames in self._rows(after):
            records = list(payloads_of(frames))
            assert len(records) == count
            for seq, (type_, payload) in enumerate(records, first):
                if type_ == _FEED:
                    found.append(Stored(seq, True, *event_id(payload)))
                else:
                    assert type_ == _OWN, f"record {seq} has type {type_}"
                    kind, _, data = payload.partition(b"\0")
                    assert kind == b"gap-alert"
                    assert GapAlert.FromString(data).gap_id
                    found.append(Stored(seq, False, kind.decode(), _id(kind.decode(), data)))
        return found

    def positions(self) -> dict[str, int]:
        """Return up to which number each reader is durably done."""
        return dict(self._ask("SELECT name, seq FROM readers"))

    @property
    def head(self) -> int:
        """Number of the last record; 0 before the first."""
        rows = self._ask("SELECT coalesce(max(first + count - 1), 0) FROM groups")
        head: int = rows[0][0]
        return head

    def _rows(self, after: int) -> Iterator[tuple[int, int, bytes, bytes]]:
        """Yield first number, count, head and frames of each group."""
        for first, count, head, frames, segment, at, size in self._ask(_ROWS, after):
            if segment is None:
                yield first, count, head, frames
                continue
            with self._path.with_name(f"segment-{segment:012d}").open("rb") as file:
                file.seek(at)
                yield first, count, head, file.read(size)

    def _ask(self, sql: str, *values: int) -> list[Any]:
        connection = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            connection.set_busy_timeout(5_000)
            return list(connection.execute(sql, values))
        finally:
            connection.close()
