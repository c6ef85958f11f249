"""What goes to JetStream at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bridge.model import Message

__all__ = ["Batch", "Block", "Written", "batches"]

_BATCH_MESSAGES = 1_000
"""Most that an atomic batch may hold (server error 10199)."""

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


class Block(NamedTuple):
    """What is written to the server at once."""

    prefix: str
    """Of the subjects of its answers, whose last part is a number."""
    answers: int
    data: bytes


Written = tuple[Batch, Block | None]
"""A batch, with its block if that is written already."""


def batches(whole: Batch) -> Iterator[Batch]:
    """Yield what may go out at once."""
    for part in whole.cut(_BATCH_MESSAGES):
        sizes = [message.data_size for message in part.messages]
        if sum(sizes) <= _BATCH_BYTES:
            yield part
            continue
        begin = held = 0
        for place, size in enumerate(sizes):
            if held and held + size > _BATCH_BYTES:
                yield part.slice(begin, place)
                begin, held = place, 0
            held += size
        yield part.slice(begin, len(sizes))
