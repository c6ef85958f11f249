"""What goes to JetStream at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bridge.core.recent import Recent
from bridge.model import Message

__all__ = ["Batch", "Listed", "Sent", "Tip", "first_of", "fresh_of"]

_BATCH_BYTES = 8 * 1024 * 1024


class Batch(NamedTuple):
    """Messages in order."""

    messages: list[Message]
    positions: Sequence[int]
    """Where each stands among those that were to be published."""

    def slice(self, begin: int, end: int) -> Batch:
        """Return those from `begin` to before `end`."""
        return Batch(self.messages[begin:end], self.positions[begin:end])

    def cut(self, most: int) -> Iterator[Batch]:
        """Yield it in parts of `most` messages."""
        for begin in range(0, len(self.messages), most):
            yield self.slice(begin, begin + most)


def first_of(whole: Batch, most: int) -> Batch:
    """Return what of `whole` may go out at once: its first messages, `most` or fewer."""
    part = whole.slice(0, most)
    held = 0
    for place, message in enumerate(part.messages):
        held += message.data_size
        if place and held > _BATCH_BYTES:
            return part.slice(0, place)
    return part


def fresh_of(whole: Batch, known: Recent) -> Batch:
    """Return those of which the id is not `known`, and each id once."""
    first: dict[str, int] = {}
    for place, message in enumerate(whole.messages):
        if message.id not in known:
            first.setdefault(message.id, place)
    places = list(first.values())
    return Batch([whole.messages[at] for at in places], [whole.positions[at] for at in places])


class Tip(NamedTuple):
    """The last message of the stream, once all is stored that was sent."""

    id: str
    """Empty: whatever it is, nothing is to be told of it."""
    number: int

    def behind(self, batch: Batch) -> Tip:
        """Return the one there will be when `batch` is stored too."""
        return Tip(batch.messages[-1].id, self.number + len(batch.messages))


class Sent(NamedTuple):
    """A batch that is sent, and the exchange that brings its answer."""

    batch: Batch
    exchange: str
    is_atomic: bool


class Listed:
    """Messages that are to be published: what of them is sent, in order, and the rest."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = messages
        self.sent: list[Sent] = []
        self.rest = Batch(list(messages), range(len(messages)))

    def take(self, most: int) -> Batch:
        """Return what of the rest may go out at once, `most` messages or fewer; it is rest no more."""
        batch = first_of(self.rest, most)
        self.rest = self.rest.slice(len(batch.messages), len(self.rest.messages))
        return batch
