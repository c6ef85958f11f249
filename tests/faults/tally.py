"""What a fault did to the events: counted by comparing journal, stream and topics."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tests.support.consumers import Read, without_repeats
from tests.support.journal_file import Stored

__all__ = ["FORMAT", "Tally", "in_stream", "in_topics", "wrong"]

FORMAT = {"BRIDGE_FORMAT": "protobuf"}
"""The data are then the node's own bytes, so that every id can be computed anew from them."""

_TOLD = 5

_OWN = {"gap-alert", "block-receipt", "dead-letter"}
_ADDED_UP = (
    *("tries", "accepted", "lost", "reordered", "duplicates", "repeats", "wrong", "compared"),
    *("recoveries", "broken", "late", "lacking", "notes"),
)


@dataclass
class Tally:
    """The figures of one fault; those of its parts can be added up."""

    tries: int = 0
    accepted: int = 0
    """Records of the feed that were committed."""
    lost: int = 0
    """Accepted, and missing in a sink."""
    reordered: int = 0
    """Messages that stand behind a later one."""
    duplicates: int = 0
    """Messages twice in JetStream."""
    repeats: int = 0
    """Messages twice in Kafka, with the same id: a batch at most for each try is allowed."""
    rewinds: int = 0
    """How often a topic began again at an earlier message, in the topic where that is most."""
    wrong: int = 0
    """Messages whose data are not what was sent."""
    recoveries: list[float] = field(default_factory=list)
    """Seconds: from the start, or from the end of the fault, until all works."""
    compared: int = 0
    """Times that the tracker's state was the same as that of a replay of its records."""
    broken: list[str] = field(default_factory=list)
    """Other promises that were not kept, a sentence for each."""
    late: list[str] = field(default_factory=list)
    """Promises of time that were not kept; a machine that does other things may be the reason."""
    lacking: list[str] = field(default_factory=list)
    """Where what was lost is missing, and what it is; of each place the first few."""
    not_tried: str = ""
    """What this machine lacks for it."""
    notes: list[str] = field(default_factory=list)
    """What else was measured."""

    @property
    def is_clean(self) -> bool:
        """Whether every promise was kept, but for those of time."""
        bad = self.lost + self.reordered + self.duplicates + self.wrong
        return not bad and not self.broken

    @property
    def recovery(self) -> float:
        """The worst."""
        return max(self.recoveries, default=0)

    def add(self, other: Tally) -> None:
        """Take the figures of `other` in."""
        for name in _ADDED_UP:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.rewinds = max(self.rewinds, other.rewinds)

    def recovered(self, seconds: float) -> None:
        """Note one recovery."""
        self.recoveries.append(seconds)


def in_stream(accepted: Sequence[Stored], held: list[Read]) -> Tally:
    """Compare a JetStream stream with what the journal accepted."""
    expected = [(record.seq, record.id) for record in accepted]
    tally = _compared("the stream", expected, held)
    tally.duplicates = len(held) - len(without_repeats(held))
    return tally


def in_topics(accepted: Sequence[Stored], topics: dict[str, list[Read]]) -> Tally:
    """Compare Kafka topics, by kind, with what the journal accepted."""
    tally = Tally()
    for kind in {record.kind for record in accepted} | topics.keys():
        held = topics.get(kind, [])
        expected = [(record.seq, record.id) for record in accepted if record.kind == kind]
        tally.add(_compared(f"the topic of {kind}", expected, held))
        tally.repeats += len(held) - len(without_repeats(held))
        tally.rewinds = max(tally.rewinds, _steps_back([message.seq for message in held]))
    return tally


def _compared(place: str, expected: list[tuple[int, str]], held: list[Read]) -> Tally:
    found = [(message.seq, message.id) for message in without_repeats(held)]
    foreign = set(found) - set(expected)
    lost = sorted(set(expected) - set(found))
    numbers = [seq for seq, _ in found]
    last = max(numbers, default=0)
    return Tally(
        lost=len(lost),
        lacking=[f"{place}, whose last is {last}, lacks {each}" for each in lost[:_TOLD]],
        reordered=_steps_back(numbers),
        wrong=len(foreign) + wrong(held),
    )


def _steps_back(numbers: list[int]) -> int:
    return sum(after <= before for before, after in pairwise(numbers))


def wrong(held: Sequence[Read]) -> int:
    """Return how many of `held` have other data than their id tells. They are in `FORMAT`."""
    return sum(
        hashlib.sha256(message.kind.encode() + b"\0" + message.data).hexdigest()[:32] != message.id
        for message in held
        if message.kind not in _OWN
    )
