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
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from bridge.core.asjson import JsonWriter, rfc3339
from bridge.core.decode import decode
from bridge.core.facts import FACTS, Facts, Pairs
from bridge.core.groups import records
from bridge.core.routing import ChainFilter, Routes
from bridge.errors import DecodeError
from bridge.model import Constants, Group, Kind, Message, Record, RecordType, Run
from bridge.pb.bridge.v1.block_receipt_pb2 import BlockReceipt
from bridge.pb.bridge.v1.dead_letter_pb2 import DeadLetter
from bridge.pb.bridge.v1.gap_alert_pb2 import GapAlert
from bridge.pb.eventmessages import factomEvents_pb2 as feed
from bridge.pb.eventmessages.directoryBlock_pb2 import DirectoryBlockAnchor

__all__ = ["MESSAGE_TYPES", "Format", "Rendered", "Renderer"]

LETTER_BYTES = 65_536
"""A dead letter holds a payload up to this size; of a larger one it holds a reference."""

Format = Literal["json", "protobuf"]
_CONTENT_TYPES: dict[Format, str] = {
    "json": "application/json",
    "protobuf": "application/protobuf",
}
_ORIGINS = {0: "live", 1: "replay", -1: "live"}

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


class Rendered(NamedTuple):
    """A group as messages. `left_out` counts, by reason, the records that give none."""

    first: int
    last: int
    messages: Sequence[Message]
    left_out: Counter[str]


class Renderer:
    """Renders records for one network, in one format.

    `epoch` is the random id made with the journal; numbers are unique within it.
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
    ) -> None:
        self._epoch = epoch
        self._off = routes.off
        self._chains = chains
        self._json = JsonWriter(json_bytes) if format == "json" else None
        self._constants = {
            kind: Constants(
                kind,
                (
                    ("specversion", "1.0"),
                    ("source", f"/factom/{network}"),
                    ("type", f"com.factom.livefeed.{kind}.v1"),
                    ("datacontenttype", _CONTENT_TYPES[format]),
                    ("dataschema", f"urn:factom-bridge:{message.DESCRIPTOR.full_name}:v1"),
                ),
            )
            for kind, message in MESSAGE_TYPES.items()
        }
        self._salts = {kind: hashlib.sha256(kind.encode() + b"\0") for kind in Kind}

    def render(self, group: Group) -> Rendered:
        """Return `group` as messages."""
        messages: list[Message] = []
        left_out: Counter[str] = Counter()
        if group.damaged:
            sentence = f"records {group.first} to {group.last}: {group.damaged}"
            lost = Record(group.first, RecordType.FEED, b"", Run("bridge", 0, 0, b""))
            messages.append(self._dead_letter(lost, "journal-damaged", sentence))
        for record in records(group):
            try:
                message = self._render(record, left_out)
            except DecodeError as error:
                message = self._dead_letter(record, error.reason, str(error))
            if message is not None:
                messages.append(message)
        return Rendered(group.first, group.last, messages, left_out)

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

    def _render(self, record: Record, left_out: Counter[str]) -> Message | None:
        if record.type == RecordType.OWN:
            name, _, data = record.payload.partition(b"\0")
            kind = Kind(name.decode())
            if kind in self._off:
                left_out["switched-off"] += 1
                return None
            member = MESSAGE_TYPES[kind].FromString(data)
            return self._own(kind, member, record.seq, b"", record.run.received_ns)
        if record.type == RecordType.FRAMING:
            reason, _, sample = record.payload.partition(b"\0")
            sentence = "bytes on the feed's port are no frame; the connection was closed"
            return self._dead_letter(record._replace(payload=sample), reason.decode(), sentence)
        event = decode(record.payload)
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
        node = identity[:64].hex()
        extra: Pairs = (("nodeidentity", node),) if node else ()
        origin = _ORIGINS.get(source)
        if origin is not None:
            extra += (("origin", origin),)
        received_ns = record.run.received_ns
        if kind is Kind.NODE_MESSAGE:
            # The same words recur: who said them, and when they came, make them one event.
            salt = identity + received_ns.to_bytes(8, "big")
            facts = Facts(node or "unknown", node or "unknown")
        else:
            salt = b""
            facts = FACTS[kind](member)
        return self._message(kind, member, data, facts, record.seq, salt, received_ns, extra)

    def _dead_letter(self, record: Record, reason: str, sentence: str) -> Message:
        payload = record.payload
        digest = hashlib.sha256(payload).digest()
        small = len(payload) <= LETTER_BYTES
        letter = DeadLetter(
            reason=reason,
            sentence=sentence,
            seq=record.seq,
            peer=record.run.peer.partition("/")[0],
            payload=payload if small else b"",
            payload_size=len(payload),
            payload_sha256=digest,
            payload_reference="" if small else f"journal:{self._epoch}/{record.seq}",
        )
        received_ns = record.run.received_ns
        if received_ns:
            seconds, nanos = divmod(received_ns, 1_000_000_000)
            letter.received_at.CopyFrom(Timestamp(seconds=seconds, nanos=nanos))
        salt = reason.encode() + digest + received_ns.to_bytes(8, "big")
        return self._own(Kind.DEAD_LETTER, letter, record.seq, salt, received_ns)

    def _own(self, kind: Kind, member: Any, seq: int, salt: bytes, received_ns: int) -> Message:
        data = member.SerializeToString(deterministic=True)
        facts = FACTS[kind](member)
        return self._message(kind, member, data, facts, seq, salt, received_ns, ())

    def _message(
        self,
        kind: Kind,
        member: Any,
        data: bytes,
        facts: Facts,
        seq: int,
        salt: bytes,
        received_ns: int,
        extra: Pairs,
    ) -> Message:
        key, subject, seconds, nanos, token, extensions = facts
        digest = self._salts[kind].copy()
        # A dead letter tells its place, which is no content: its salt alone is hashed.
        digest.update(salt if kind is Kind.DEAD_LETTER else data + salt)
        id_ = digest.hexdigest()[:32]
        received = _received(received_ns)
        at = rfc3339(seconds, nanos) if seconds else None
        varying = (
            ("id", id_),
            ("subject", subject),
            ("time", at or received),
            ("sequence", f"{seq:020d}"),
            ("recordedtime", received),
            *extensions,
            *extra,
        )
        if key is not None:
            varying += (("partitionkey", key),)
        body = data if self._json is None else self._json.write(member)
        return Message(seq, id_, key, token, self._constants[kind], varying, body)


@lru_cache(maxsize=64)
def _received(received_ns: int) -> str:
    """The runs of one read share their time, to the microsecond."""
    seconds, nanos = divmod(received_ns, 1_000_000_000)
    return rfc3339(seconds, nanos // 1000 * 1000) or "1970-01-01T00:00:00Z"
