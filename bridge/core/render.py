"""Turns the journal's records into messages: decode, normalise, choose, write.

One record gives one message, or none (an event with no member, a kind switched off, another
chain), or a dead letter in its place: so the messages are in the order of the records, and each
carries the record's number. The same record always gives the same message, whichever sink asks and
however often: ids come from content alone (`docs/contracts.md`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Literal, NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from bridge.core.asjson import JsonWriter, rfc3339
from bridge.core.decode import decode
from bridge.core.facts import FACTS
from bridge.core.framing import frame_at
from bridge.core.native import native
from bridge.core.routing import ChainFilter, Routes
from bridge.core.short_way import ShortWay
from bridge.errors import DecodeError
from bridge.model import API_PEER, Group, Kind, Layout, Message, RecordType, Run
from bridge.pb.bridge.v1.block_receipt_pb2 import BlockReceipt
from bridge.pb.bridge.v1.dead_letter_pb2 import DeadLetter
from bridge.pb.bridge.v1.gap_alert_pb2 import GapAlert
from bridge.pb.eventmessages import factomEvents_pb2 as feed
from bridge.pb.eventmessages.directoryBlock_pb2 import DirectoryBlockAnchor

__all__ = [
    "CONTENT_TYPES",
    "MESSAGE_TYPES",
    "Format",
    "Rendered",
    "Renderer",
    "schema_uri",
    "type_of",
]

_SENTENCE = 1_000
_QUARANTINED = (
    "the bridge died at this record time and again, so it is not decoded any more;"
    " report these bytes as a bug"
)
LETTER_BYTES = 65_536
"""A dead letter holds a payload up to this size; of a larger one it holds a reference."""

_IDENTITY_BYTES = 64
"""Twice what an identity has; of a longer, made-up one only so much is told."""

_MOST_ORIGINS = 1_000
"""Nodes whose attributes are kept ready. More than any network has; forged ones are not kept."""

Format = Literal["json", "protobuf"]
CONTENT_TYPES: dict[Format, str] = {
    "json": "application/json",
    "protobuf": "application/protobuf",
}
_ORIGINS: dict[int | str, str] = {0: "live", 1: "replay", -1: "live", API_PEER: "api"}
"""By `eventSource`, or by the kind of peer where that says more."""

MESSAGE_TYPES: dict[Kind, Any] = {
    Kind.CHAIN_COMMIT: feed.ChainCommit,
    Kind.ENTRY_COMMIT: feed.EntryCommit,
    Kind.ENTRY_REVEAL: feed.EntryReveal,
    Kind.STATE_CHANGE: feed.StateChange,
    Kind.DIRECTORY_BLOCK_COMMIT: feed.DirectoryBlockCommit,
    Kind.DIRECTORY_BLOCK_ANCHOR: DirectoryBlockAnchor,
    Kind.PROCESS_LIST_EVENT: feed.ProcessListEvent,
    Kind.NODE_MESSAGE: feed.NodeMessage,
    Kind.GAP_ALERT: GapAlert,
    Kind.BLOCK_RECEIPT: BlockReceipt,
    Kind.DEAD_LETTER: DeadLetter,
}
"""The protobuf message that is the data of each kind."""


def type_of(kind: Kind) -> str:
    """Return the CloudEvents type of `kind`."""
    return f"com.factom.livefeed.{kind}.v1"


def schema_uri(kind: Kind) -> str:
    """Return the name of the schema of the data of `kind`, with its version."""
    return f"urn:factom-bridge:{MESSAGE_TYPES[kind].DESCRIPTOR.full_name}:v1"


class Rendered(NamedTuple):
    """A group as messages. `left_out` counts, by reason, the records that give none."""

    first: int
    last: int
    messages: Sequence[Message]
    left_out: Counter[str]
    blocks: bool
    """Whether there are directory blocks among the messages."""


class _Origin:
    """What the envelope says, as attributes: made once per node and source."""

    def __init__(self, attributes: dict[str, str]) -> None:
        self.names = tuple(attributes)
        self.values = tuple(attributes.values())
        self.layouts: dict[Kind, Layout] = {}
        """Of messages that have a subject: all but made-up ones."""


class Renderer:
    """Renders records for one network, in one format.

    `epoch` is the random id made with the journal; numbers are unique within it. Without `compiled`
    it does the same, and takes four times as long.
    """

    def __init__(
        self,
        *,
        network: str,
        epoch: str,
        routes: Routes,
        chains: ChainFilter,
        format: Format = "json",
        json_bytes: Literal["hex", "base64"] = "hex",
        compiled: ModuleType | None = native,
    ) -> None:
        self._source = f"/factom/{network}"
        self._epoch = epoch
        self._off = routes.off
        self._chains = chains
        self._content_type = CONTENT_TYPES[format]
        self._json = JsonWriter(json_bytes, compiled) if format == "json" else None
        self._salts = {kind: hashlib.sha256(_salt(kind)) for kind in Kind}
        self._origins: dict[tuple[int | str, bytes], _Origin] = {}
        self._bridge = _Origin({})
        self._short = ShortWay(compiled if format == "protobuf" or json_bytes == "hex" else None)

    def render(self, group: Group) -> Rendered:
        """Return `group` as messages."""
        messages: list[Message] = []
        left_out: Counter[str] = Counter()
        blocks = False
        seq = group.first
        if group.damaged:
            sentence = f"records {seq} to {group.last}: {group.damaged}"
            run = Run("bridge", 0, 0, b"")
            messages.append(self._dead_letter(seq, b"", run, "journal-damaged", sentence))
        for run in group.runs:
            received = _received(run.received_ns)
            fetched = run.peer.startswith(API_PEER)
            frames, at = run.frames, 0
            while at < len(frames):
                at, seq = self._short.take(frames, at, seq, received, messages, fetched)
                if at == len(frames):
                    break
                type_, payload, at = frame_at(frames, at)
                try:
                    if type_ == RecordType.FEED:
                        message = self._event(seq, payload, run, received, left_out, fetched)
                    else:
                        message = self._bridges_own(seq, type_, payload, run, left_out)
                except DecodeError as error:
                    message = self._dead_letter(seq, payload, run, error.reason, str(error))
                if message is not None:
                    messages.append(message)
                    if message.layout.kind is Kind.DIRECTORY_BLOCK_COMMIT:
                        blocks = True
                seq += 1
        return Rendered(group.first, group.last, messages, left_out, blocks)

    def quarantined(self, group: Group) -> Rendered:
        """Return the dead letter in place of the one record of `group`, which is not decoded."""
        return self.instead(group, "quarantined", _QUARANTINED)

    def instead(self, group: Group, reason: str, sentence: str) -> Rendered:
        """Return the dead letter in place of the one record of `group`."""
        (run,) = group.runs
        _, payload, _ = frame_at(run.frames, 0)
        letter = self._dead_letter(group.first, payload, run, reason, sentence)
        return Rendered(group.first, group.last, [letter], Counter(), blocks=False)

    def refused(self, message: Message, sink: str, error: str) -> Message:
        """Return the dead letter that takes the place of `message`, which `sink` refused."""
        letter = DeadLetter(
            reason="refused",
            sentence=f"{sink} refused the message {message.id}",
            seq=message.seq,
            peer="bridge",
            kind=message.kind.value,
            payload_size=len(message.data),
            payload_sha256=hashlib.sha256(message.data).digest(),
            payload_reference=f"journal:{self._epoch}/{message.seq}",
            sink=sink,
            sink_error=error[:1000],
        )
        return self._own(Kind.DEAD_LETTER, letter, message.seq, message.id.encode(), 0)

    def _event(
        self,
        seq: int,
        payload: bytes,
        run: Run,
        received: str,
        left_out: Counter[str],
        fetched: bool,  # noqa: FBT001  (by position: it is called for every event)
    ) -> Message | None:
        event = decode(payload)
        if event is None:
            left_out["empty"] += 1
            return None
        kind, source, identity, member, data = event
        if kind in self._off:
            left_out["switched-off"] += 1
            return None
        if not self._chains.passes(kind, member):
            left_out["other-chain"] += 1
            return None
        way = API_PEER if fetched else source
        origin = self._origins.get((way, identity)) or self._origin(way, identity)
        if kind is not Kind.NODE_MESSAGE:
            message = self._message(kind, member, data, seq, b"", received, origin)
            if message.layout is origin.layouts.get(kind) and not self._chains.looks_at(kind):
                table = self._json.table(member.DESCRIPTOR) if self._json else None
                told = message.layout, _salt(kind), origin.values, table
                self._short.learn(kind, (source, identity), told, fetched=fetched)
            return message
        # The same words recur: who said them, and when they came, make them one event.
        salt = identity + run.received_ns.to_bytes(8, "big")
        return self._message(
            kind, member, data, seq, salt, received, origin, identity[:_IDENTITY_BYTES].hex()
        )

    def _origin(self, source: int | str, identity: bytes) -> _Origin:
        found: dict[str, str] = {}
        if identity:
            found["nodeidentity"] = identity[:_IDENTITY_BYTES].hex()
        if source in _ORIGINS:
            found["origin"] = _ORIGINS[source]
        origin = _Origin(found)
        if len(self._origins) < _MOST_ORIGINS and len(identity) <= _IDENTITY_BYTES:
            self._origins[source, identity] = origin
        return origin

    def _bridges_own(
        self, seq: int, type_: int, payload: bytes, run: Run, left_out: Counter[str]
    ) -> Message | None:
        name, _, data = payload.partition(b"\0")
        if type_ == RecordType.FRAMING:
            sentence = "bytes on the feed's port are no frame; the connection was closed"
            return self._dead_letter(seq, data, run, name.decode(), sentence)
        kind = Kind(name.decode())
        if kind in self._off:
            left_out["switched-off"] += 1
            return None
        return self._own(kind, MESSAGE_TYPES[kind].FromString(data), seq, b"", run.received_ns)

    def _dead_letter(
        self, seq: int, payload: bytes, run: Run, reason: str, sentence: str
    ) -> Message:
        digest = hashlib.sha256(payload).digest()
        small = len(payload) <= LETTER_BYTES
        letter = DeadLetter(
            reason=reason,
            sentence=sentence[:_SENTENCE].encode(errors="backslashreplace").decode(),
            seq=seq,
            peer=run.peer.partition("/")[0],
            payload=payload if small else b"",
            payload_size=len(payload),
            payload_sha256=digest,
            payload_reference="" if small else f"journal:{self._epoch}/{seq}",
        )
        received_ns = run.received_ns
        if received_ns:
            seconds, nanos = divmod(received_ns, 1_000_000_000)
            letter.received_at.CopyFrom(Timestamp(seconds=seconds, nanos=nanos))
        salt = reason.encode() + digest + received_ns.to_bytes(8, "big")
        if not payload:
            salt += sentence.encode()
        return self._own(Kind.DEAD_LETTER, letter, seq, salt, received_ns)

    def _own(self, kind: Kind, member: Any, seq: int, salt: bytes, received_ns: int) -> Message:
        data = member.SerializeToString(deterministic=True)
        return self._message(kind, member, data, seq, salt, _received(received_ns), self._bridge)

    def _message(
        self,
        kind: Kind,
        member: Any,
        data: bytes,
        seq: int,
        salt: bytes,
        received: str,
        origin: _Origin,
        node: str = "",
    ) -> Message:
        key, subject, seconds, nanos, token, extensions = FACTS[kind].read(member)
        if node:
            key = subject = node
        digest = self._salts[kind].copy()
        # A dead letter tells its place, which is no content: its salt alone is hashed.
        digest.update(salt if kind is Kind.DEAD_LETTER else data + salt)
        id_ = digest.hexdigest()[:32]
        time = (rfc3339(seconds, nanos) if seconds else None) or received
        number = f"{seq:020d}"
        if not subject:
            key = None
            values: tuple[str, ...] = (id_, time, number, received, *extensions, *origin.values)
            layout = self._layout(kind, origin, ())
        else:
            if key is None:
                values = (id_, time, number, received, subject, *extensions, *origin.values)
            else:
                values = (id_, time, number, received, subject, key, *extensions, *origin.values)
            found = origin.layouts.get(kind)
            if found is None:
                named = ("subject",) if key is None else ("subject", "partitionkey")
                found = origin.layouts[kind] = self._layout(kind, origin, named)
            layout = found
        body = data if self._json is None else self._json.write(member, data)
        return Message(seq, id_, key, token, layout, values, body)

    def _layout(self, kind: Kind, origin: _Origin, named: tuple[str, ...]) -> Layout:
        names = ("id", "time", "sequence", "recordedtime", *named)
        constants = (
            ("specversion", "1.0"),
            ("source", self._source),
            ("type", type_of(kind)),
            ("datacontenttype", self._content_type),
            ("dataschema", schema_uri(kind)),
        )
        return Layout(kind, constants, names + FACTS[kind].extensions + origin.names)


def _salt(kind: Kind) -> bytes:
    """Return what is hashed in front of the data for an id."""
    return kind.encode() + b"\0"


def _received(received_ns: int) -> str:
    seconds, nanos = divmod(received_ns, 1_000_000_000)
    return rfc3339(seconds, nanos // 1000 * 1000) or "1970-01-01T00:00:00Z"
