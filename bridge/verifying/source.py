"""What is read back, wherever from."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

from bridge.model import Kind

__all__ = ["Published", "Source"]


class Published(NamedTuple):
    """One message as a consumer has it."""

    place: str
    """Where it stands, in the broker's words."""
    left: int
    """How many may follow it; for the progress bar."""
    attributes: Mapping[str, str]
    """CloudEvents attributes by their names."""
    data: bytes
    where: Mapping[str, str | int] = MappingProxyType({})
    """The parts of `place` by name: topic, partition, offset; or stream, subject, sequence."""


class Source(Protocol):
    """A broker that is connected to."""

    @property
    def name(self) -> str:
        """`kafka` or `nats`."""
        ...

    def read(self, kind: Kind, since_ns: int = 0) -> AsyncGenerator[Published, None]:
        """Yield the messages of `kind` that are there now, in their order.

        Only those that the broker stored at `since_ns` (nanoseconds since 1970) or later.
        """
        ...

    async def fetch(self, reference: str) -> bytes:
        """Return the data that a claim check's `dataref` names.

        Raises:
            LookupError: it is not there, or not whole.
        """
        ...
