"""What the stages need from the shells, as they see it.

A shell keeps the promise written at each method; `tests/contract` holds every sink to them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NoReturn, Protocol

from bridge.model import Group, Kind, Message, Run, Standing, Tail

__all__ = ["Feed", "Journal", "Node", "Sink"]


class Feed(Protocol):
    """Where receivers hand their runs over. None of these waits."""

    @property
    def congested(self) -> bool:
        """Whether to stop reading until relieved."""
        ...

    @property
    def full(self) -> bool:
        """Whether to refuse what cannot wait."""
        ...

    @property
    def closed(self) -> bool:
        """Whether no peer is to be let in, because the journal's disk is full."""
        ...

    def offer(self, run: Run) -> None:
        """Hand `run` over."""
        ...

    def when_relieved(self, call: Callable[[], None]) -> None:
        """Call `call` once when reading may go on."""
        ...


class Journal(Protocol):
    """The journal: groups past a checkpoint out, runs and derived records in."""

    @property
    def head(self) -> int:
        """Number of the last record that is committed and synced; 0 before the first."""
        ...

    def position(self, reader: str) -> int:
        """Number of the last record that `reader` is done with."""
        ...

    async def wait(self, after: int) -> None:
        """Return when a record numbered above `after` is committed."""
        ...

    async def read(self, after: int, max_bytes: int) -> list[Group]:
        """Return the groups with records above `after`, in order; empty when there is none.

        There is one at least, and more up to `max_bytes` in all.

        Raises:
            StorageDamaged: the file cannot be read.
        """
        ...

    async def append(self, runs: Sequence[Run], *, urgent: bool = False) -> int:
        """Commit and sync `runs`, and return the number of the last record.

        What is `urgent`, and small, is written past the cap, and with the reserve's room.

        Raises:
            StorageFull: nothing was written; the same call may be made again.
            StorageDamaged: what is on the disk is unknown; the process must end.
        """
        ...

    async def advance(
        self, reader: str, seq: int, runs: Sequence[Run], items: Mapping[str, bytes | None]
    ) -> None:
        """Commit in one transaction: what `reader` derived, its state, its checkpoint.

        `items` are what changed of the state, by name; None takes one away.

        Raises: as `append`.
        """
        ...

    def items(self, reader: str) -> list[tuple[str, bytes]]:
        """Return the state of `reader`, as committed, by name.

        Raises:
            StorageDamaged: the file cannot be read.
        """
        ...

    def item(self, reader: str, name: str) -> bytes | None:
        """Return one of them; None where there is none. Raises: as `items`."""
        ...

    def state(self, reader: str) -> bytes | None:
        """Return what `reader` last noted beside its checkpoint."""
        ...

    def checkpoint(self, reader: str, seq: int, state: bytes | None = None) -> None:
        """Note that `reader` is done up to `seq`, and its state if that is given.

        Durable with the next commit or soon after. Going back is for a sink that lost something.
        """
        ...


class Node(Protocol):
    """The node's API. What it answers is bounded in size and time, and else believed in nothing.

    Every method raises:
        NodeUnavailable: it does not answer, or not as a node does.
        NodeRefused: it answers with an error; `not_found` tells that it has not what was asked for.
    """

    async def tip(self) -> int:
        """Return the height of the last block that it has saved."""
        ...

    async def parts(self, height: int) -> tuple[bytes, bytes, bytes, bytes]:
        """Return the directory, admin, entry-credit and factoid block of `height`, in binary.

        Nothing is verified, not even that they are of that height.
        """
        ...

    async def raw(self, hash_: bytes) -> bytes:
        """Return what has that hash, in binary: an entry block or an entry. Not verified."""
        ...

    async def replay(self, first: int, last: int) -> None:
        """Have the node send the blocks of `first` to `last` again, over the feed.

        Returning means that it was asked, and not that anything will come.
        """
        ...


class Sink(Protocol):
    """A broker. Used by one lane, never by two at once."""

    @property
    def name(self) -> str:
        """`kafka` or `nats`: the checkpoint's name and the metrics' label."""
        ...

    def limit(self, kind: Kind) -> int:
        """Return how large a message of `kind` may be, in bytes of data and attributes.

        It is what the broker took when it was opened.
        """
        ...

    async def open(self) -> None:
        """Connect, and create or verify topics or streams. Opens anew what was closed.

        Raises:
            SinkUnavailable: the broker does not answer.
            SinkFault: it answers, and refuses the bridge or lacks what the contract needs.
        """
        ...

    @property
    def mark(self) -> bytes | None:
        """What tells the last acknowledged message in the broker's own terms, for `standing`."""
        ...

    async def standing(
        self, mark: bytes | None, ours: Callable[[Tail], Awaitable[bool]]
    ) -> Standing:
        """Return how the broker stands to `mark`, which was kept beside the checkpoint.

        `ours` says whether a message is the very one that the journal has under its number: one
        that another journal brought is nothing to go by.

        Raises: as `publish`.
        """
        ...

    async def watch(self) -> NoReturn:
        """Look after the connection while there is nothing to send, until cancelled.

        Raises:
            SinkUnavailable: the broker is away.
        """
        ...

    async def prepare(self, messages: Sequence[Message]) -> None:
        """Write what `publish` is given next, and send it, if it cannot get there in front.

        It is called while what comes before is under way, in order; not while something is that was
        not prepared. None of `messages` is over its limit.
        """
        ...

    async def publish(self, messages: Sequence[Message]) -> int:
        """Send `messages` in order; return how many of them the broker had already.

        Returning means that each is acknowledged. After any error none may be taken for sent, and
        the sink is to be closed and opened again.

        Raises:
            MessageRefused: the message at `position` alone is refused, those before it are sent.
            SinkUnavailable, SinkFault: see there.
        """
        ...

    async def set_aside(self, message: Message) -> str:
        """Store the data of a message over the limit; return the URI of where it is.

        Storing the same message again does no harm. Raises: as `publish`.
        """
        ...

    async def close(self) -> None:
        """Let go of the broker within 2 s, whatever state it is in. Never raises."""
        ...
