"""The values that pass between the parts: what a peer sent, what the journal holds, what goes out.

They are tuples, not dataclasses: one of each is made per event on the hot path.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import NamedTuple

__all__ = [
    "API_PEER",
    "Asked",
    "Group",
    "Kind",
    "Layout",
    "Message",
    "Note",
    "RecordType",
    "Run",
    "Sought",
    "Standing",
    "Tail",
    "Tip",
    "Unobtainable",
    "Way",
]

API_PEER = "api"
"""Kind of peer of what the bridge fetched: `api/7` brings what belongs to height 7."""


class Kind(StrEnum):
    """What a published message is; the value names its topic and its CloudEvents type."""

    CHAIN_COMMIT = "chain-commit"
    ENTRY_COMMIT = "entry-commit"
    ENTRY_REVEAL = "entry-reveal"
    STATE_CHANGE = "state-change"
    DIRECTORY_BLOCK_COMMIT = "directory-block-commit"
    DIRECTORY_BLOCK_ANCHOR = "directory-block-anchor"
    PROCESS_LIST_EVENT = "process-list-event"
    NODE_MESSAGE = "node-message"
    GAP_ALERT = "gap-alert"
    BLOCK_RECEIPT = "block-receipt"
    DEAD_LETTER = "dead-letter"


class RecordType(IntEnum):
    """First byte of a record in the journal. FEED is the wire's own version byte, on purpose."""

    FEED = 1
    """A payload as a node sent it."""
    FRAMING = 2
    """Reason, a zero byte, and up to 64 bytes of what could not be a frame."""
    OWN = 3
    """Kind, a zero byte, and a message of the bridge's own (an alert, say) as protobuf."""


class Way(StrEnum):
    """How a block came, or is asked for."""

    LIVE = "live"
    """Over the feed, unasked."""
    REPLAY = "replay"
    """Over the feed, on `replay-from-height`."""
    API = "api"
    """Fetched by height and hash, and put together by the bridge."""


class Run(NamedTuple):
    """Records of one peer that arrived together: the unit between receivers and journal.

    `frames` holds `records` records as they stand on the wire (type byte, int32 little-endian
    length, payload), so that a feed's bytes reach the disk without being touched.
    """

    peer: str
    """Kind of peer and number of its connection: `tcp/7`, `udp/3`, `bridge`."""
    received_ns: int
    """Wall time of arrival, nanoseconds since 1970: data, never used to order or time anything."""
    records: int
    frames: bytes


class Group(NamedTuple):
    """What one commit made durable: runs whose records are numbered `first` .. `last`."""

    first: int
    last: int
    runs: tuple[Run, ...]
    damaged: str = ""
    """Why the stored bytes cannot be trusted; then `runs` is empty."""


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """What many messages have in common: each sink encodes it once, and finds it by identity."""

    kind: Kind
    constants: tuple[tuple[str, str], ...]
    """CloudEvents attributes that are the same in every one of them."""
    names: tuple[str, ...]
    """Names of the attributes that differ, in the order of `Message.values`."""


class Message(NamedTuple):
    """One message for the brokers: CloudEvents attributes and data.

    The compiled part makes others that have the same attributes (`core.short_way`).
    """

    seq: int
    """The journal's number of the event that it came from."""
    id: str
    key: str | None
    token: str
    """Last part of the NATS subject, or empty."""
    layout: Layout
    values: tuple[str, ...]
    data: bytes

    @property
    def data_size(self) -> int:
        """Bytes of `data`."""
        return len(self.data)

    @property
    def kind(self) -> Kind:
        """The kind, as the routes know it."""
        return self.layout.kind

    @property
    def attributes(self) -> dict[str, str]:
        """All CloudEvents attributes by name."""
        layout = self.layout
        return dict(layout.constants) | dict(zip(layout.names, self.values, strict=True))


class Tail(NamedTuple):
    """The last message of this journal that a broker holds, with all those before it."""

    seq: int
    id: str


class Standing(NamedTuple):
    """How a broker stands to what it once acknowledged."""

    tail: Tail | None
    """What it holds, with all before it; None where it cannot tell, or holds nothing of this
    journal."""
    lost: bool
    """Whether it lacks something that it had acknowledged."""


class Asked(NamedTuple):
    """Backfill asked for the blocks of `first` to `last`."""

    first: int
    last: int
    way: Way


class Unobtainable(NamedTuple):
    """Backfill has tried every way for `first` to `last`, and will try again, but seldom."""

    first: int
    last: int
    why: str
    """A sentence for the operator."""


class Tip(NamedTuple):
    """The node says that its highest saved directory block is `height`."""

    height: int


class Sought(NamedTuple):
    """The settings or an operator want the blocks of `first` to `last`, known or not."""

    first: int
    last: int


Note = Asked | Unobtainable | Tip | Sought
"""What the tracker is told beside the feed."""
