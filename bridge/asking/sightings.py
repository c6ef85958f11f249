"""What was seen of a subject: each event with its way, as much of it as is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from bridge.core.facts import FACTS
from bridge.model import Kind

__all__ = ["Sighting", "Sightings", "state_of"]

_MOST = 12
"""Sightings of each kind that are kept, beside the last: a chain may have millions of entries."""


class Sighting(NamedTuple):
    """One event that names the subject."""

    seq: int
    """The journal's number of it."""
    received: str
    """RFC 3339."""
    peer: str
    """Kind of peer and number of its connection; empty where only the broker told."""
    kind: Kind
    roles: tuple[str, ...]
    """The fields that name the subject."""
    state: str
    """What tells apart two events of one kind."""
    attributes: Mapping[str, str]
    """Of the message that it became; empty where it became none."""
    left_out: str = ""
    """Why it became no message; empty where it did."""
    where: Mapping[str, str | int] = MappingProxyType({})
    """Where a broker holds it, if that is where it was seen."""

    @property
    def id(self) -> str:
        """The message's CloudEvents id; empty where there is none."""
        return self.attributes.get("id", "")

    @property
    def way(self) -> str:
        """`live`, `replay`, `api`, or `bridge` for what the bridge itself said."""
        return self.attributes.get("origin", "bridge" if self.attributes else "")

    @property
    def height(self) -> int | None:
        """The height that the event is of, where it tells one."""
        text = self.attributes.get("blockheight")
        return None if text is None else int(text)

    @property
    def told(self) -> dict[str, Any]:
        """Everything, as JSON."""
        return {
            "seq": self.seq,
            "received": self.received,
            "peer": self.peer,
            "node": self.attributes.get("nodeidentity", ""),
            "way": self.way,
            "kind": self.kind,
            "state": self.state,
            "names_it_as": list(self.roles),
            "height": self.height,
            "id": self.id,
            "left_out": self.left_out,
        }


class Sightings:
    """The first of each kind and the last, and how many there are."""

    def __init__(self) -> None:
        self.counts: Counter[Kind] = Counter()
        self._first: dict[Kind, list[Sighting]] = {}
        self._last: dict[Kind, Sighting] = {}

    def add(self, sighting: Sighting) -> None:
        """Take the next one of its kind."""
        kind = sighting.kind
        self.counts[kind] += 1
        first = self._first.setdefault(kind, [])
        if len(first) < _MOST:
            first.append(sighting)
        else:
            self._last[kind] = sighting

    def __iter__(self) -> Iterator[Sighting]:
        """Yield those that are kept, in the order of the journal."""
        kept = [each for first in self._first.values() for each in first]
        yield from sorted([*kept, *self._last.values()], key=lambda sighting: sighting.seq)

    def ends(self) -> dict[Kind, tuple[Sighting, Sighting]]:
        """Return the first and the last of each kind."""
        return {
            kind: (first[0], self._last.get(kind, first[-1])) for kind, first in self._first.items()
        }

    def not_kept(self) -> dict[Kind, int]:
        """Return how many of each kind are counted only."""
        kept = Counter(sighting.kind for sighting in self)
        return {
            kind: count - kept[kind] for kind, count in self.counts.items() if count > kept[kind]
        }

    def heights(self) -> list[int]:
        """Return the heights of which an event names the subject as its own, ascending."""
        found = set[int]()
        for sighting in self:
            # The block above names it too, as its previous one.
            previous = all("previous" in role for role in sighting.roles)
            if sighting.height is not None and not previous:
                found.add(sighting.height)
        return sorted(found)


def state_of(kind: Kind, member: Any) -> str:
    """Return what `member` tells of its state, in a word or two."""
    if kind is Kind.PROCESS_LIST_EVENT:
        minute = member.newMinuteEvent.newMinute
        return f"minute {minute}" if member.HasField("newMinuteEvent") else "new block"
    if kind is Kind.BLOCK_RECEIPT:
        return "complete" if member.complete else "not complete"
    names, read = FACTS[kind]
    *_, token, values = read(member)
    told = dict(zip(names, values, strict=True))
    status = token if kind is Kind.GAP_ALERT else ""
    return told.get("entitystate") or told.get("blockdetail") or status
