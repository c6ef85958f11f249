"""What the tracker says: values that hold all that an alert tells, and no prose of their own.

A signal is complete: whoever has the latest one of each id knows what is wrong now.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from bridge.core.ranges import Range
from bridge.model import Way

__all__ = ["Cause", "Signal", "Status", "Trouble"]


class Trouble(StrEnum):
    """What is wrong."""

    GAP = "gap"
    JUMP = "jump"
    """A height too far ahead to be believed."""
    STALLED = "stalled"
    REGRESSION = "regression"
    """A height that is there came with another key."""
    NETWORK = "network"
    """A block of another network."""
    UNVERIFIED = "unverified"
    """A block whose own hashes do not hold."""


class Status(StrEnum):
    """How far a trouble has come; the first of them is told to nobody."""

    SEEN = "seen"
    OPENED = "opened"
    UPDATED = "updated"
    BACKFILLING = "backfilling"
    UNRESOLVED = "unresolved"
    RESOLVED = "resolved"


class Cause(StrEnum):
    """Why heights are missing, as far as what came tells it."""

    SILENT = "node-silent"
    NOT_SYNCED = "node-not-synced"
    RESTART = "bridge-restart"
    STORAGE = "storage"
    UNLINKED = "unlinked"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Signal:
    """One state of one trouble."""

    id: str
    """Stable from the first sight to the end, and of one trouble only; without the network."""
    trouble: Trouble
    status: Status
    first: int
    last: int
    opened_ns: int
    changed_ns: int
    cause: Cause = Cause.UNKNOWN
    missing: tuple[Range, ...] = ()
    """What is still missing, ascending; the first `gaps.MOST_RANGES` of it."""
    count: int = 0
    """Heights that are missing."""
    how: Way | None = None
    """How the latest of those that were missing came."""
    attempts: int = 0
    before: int | None = None
    """The height before the first, where it is there."""
    after: int | None = None
    """The height after the last, where it is there."""
    why: str = ""
    """What was found, in a sentence without its full stop, where the rest does not say it."""
