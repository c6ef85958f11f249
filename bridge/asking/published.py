"""Finds messages in a broker: where they stand there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any, NamedTuple

from bridge.asking.recorded import Account
from bridge.asking.sightings import Sighting, Sightings, state_of
from bridge.asking.subject import Subject
from bridge.errors import DecodeError
from bridge.model import Kind
from bridge.verifying.data import Data
from bridge.verifying.source import Published, Source

__all__ = ["Places", "Wanted", "account", "locate", "search", "wanted"]

_SLACK_NS = 60 * 1_000_000_000
"""How much the broker's clock may be behind ours; where it is more, the whole topic is read."""

Places = dict[str, list[Mapping[str, str | int]]]
"""Where messages stand, by their id."""

Told = Callable[[str, int], None]
"""Is told what is being read, and how many messages are left of it."""


class Wanted(NamedTuple):
    """Messages of one kind that are looked for."""

    ids: frozenset[str]
    since_ns: int
    """When the first of them was received."""


def wanted(sightings: Iterable[Sighting]) -> dict[Kind, Wanted]:
    """Return by kind the messages that `sightings` became."""
    found: dict[Kind, Wanted] = {}
    for sighting in sightings:
        if sighting.id:
            at_ns = int(datetime.fromisoformat(sighting.received).timestamp()) * 1_000_000_000
            before = found.get(sighting.kind, Wanted(frozenset(), at_ns))
            ids = before.ids | {sighting.id}
            found[sighting.kind] = Wanted(ids, min(before.since_ns, at_ns))
    return found


async def locate(source: Source, looked_for: Mapping[Kind, Wanted], told: Told) -> Places:
    """Return where `source` holds the messages that are looked for.

    It is read from shortly before their time on, and whole where that does not find all: a
    message may have been sent long before, when the same event came for the first time.
    """
    places: Places = {}
    for kind, (ids, since_ns) in looked_for.items():
        await _locate(source, kind, ids, max(since_ns - _SLACK_NS, 1), places, told)
        rest = ids - places.keys()
        if rest:
            await _locate(source, kind, rest, 0, places, told)
    return places


async def _locate(
    source: Source, kind: Kind, ids: frozenset[str], since_ns: int, places: Places, told: Told
) -> None:
    left = set(ids)
    async with aclosing(source.read(kind, since_ns)) as messages:
        async for message in messages:
            told(f"{source.name}: {kind}", message.left)
            id_ = message.attributes.get("id", "")
            if id_ in ids:
                places.setdefault(id_, []).append(message.where)
                left.discard(id_)
                if not left:
                    return


async def search(
    source: Source, subject: Subject, kinds: Iterable[Kind], data: Data, told: Told
) -> Sightings:
    """Read `kinds` of `source` whole; return what it holds of `subject`."""
    found = Sightings()
    for kind in kinds:
        async for message, member in _about([subject], source, kind, data, told):
            attributes = message.attributes
            roles = subject.roles(kind, member)
            seq, received = int(attributes["sequence"]), attributes["recordedtime"]
            state = state_of(kind, member)
            found.add(
                Sighting(seq, received, "", kind, roles, state, attributes, "", message.where)
            )
    return found


async def account(
    source: Source, heights: Sequence[int], kinds: Iterable[Kind], data: Data, told: Told
) -> Account:
    """Return what `source` holds of the bridge's own words about `heights`."""
    found = Account()
    subjects = [Subject(height=height) for height in heights]
    for kind in kinds:
        async for _, member in _about(subjects, source, kind, data, told):
            found.add(kind, member)
    return found


async def _about(
    subjects: Sequence[Subject], source: Source, kind: Kind, data: Data, told: Told
) -> AsyncIterator[tuple[Published, Any]]:
    async with aclosing(source.read(kind)) as messages:
        async for message in messages:
            told(f"{source.name}: {kind}", message.left)
            named = (s for s in subjects if s.named_by(kind, message.attributes, message.data))
            if not any(named):
                continue
            try:
                member = await data.read(kind, message)
            except DecodeError:
                # `verify` names those; here they are no answer.
                continue
            if any(subject.roles(kind, member) for subject in subjects):
                yield message, member
