"""The short way of an event to its message, where the compiled part was built (`_native.c`).

What stands in front of a member in the envelope is the same in thousands of events: source,
identity, and the member's tag. The first of them goes the long way (`render`), and what is then known
of it lets the others go the short one.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from bridge.core.facts import STATE_NAMES
from bridge.core.native import native
from bridge.model import Kind, Layout, Message

__all__ = ["ShortWay"]

_TAGS = {
    Kind.CHAIN_COMMIT: b"\x22",
    Kind.ENTRY_COMMIT: b"\x2a",
    Kind.ENTRY_REVEAL: b"\x32",
    Kind.STATE_CHANGE: b"\x3a",
    Kind.PROCESS_LIST_EVENT: b"\x4a",
}
"""The kinds that come by the thousand, with their tags in the envelope."""

_MOST_KNOWN = 1_000
_LONGEST_IDENTITY = 64


_Told = tuple[Layout, bytes, tuple[str, ...], Any]
_Known = dict[bytes, _Told]


def _replace(message: Any, **changes: Any) -> Message:
    """Return what a lazy message says as a `Message`, with `changes`."""
    named = {name: getattr(message, name) for name in Message._fields}
    return Message(**named | changes)


def _lazy_messages(compiled: ModuleType) -> type[Any]:
    """Return the type of messages whose attributes are written when they are asked for.

    Each holds the bytes that its event came in. Nearly all are only ever written for a broker, by the
    compiled part, which needs no more.
    """
    like_message = {"kind": Message.kind, "attributes": Message.attributes, "_replace": _replace}
    return type("LazyMessage", (compiled.LazyMessage,), {"__slots__": (), **like_message})


class ShortWay:
    """What is known so far. Without `compiled` nothing takes it."""

    def __init__(self, compiled: ModuleType | None = native) -> None:
        self._compiled = compiled
        self._type = compiled and _lazy_messages(compiled)
        self._known: tuple[_Known, _Known] = {}, {}
        """By whether the event was fetched, for then its attributes say so."""

    def learn(
        self,
        kind: Kind,
        envelope: tuple[int, bytes],
        told: _Told,
        *,
        fetched: bool,
    ) -> None:
        """Remember what the messages of `kind` of an `envelope` (source, identity) have in common.

        That is their layout, what is hashed in front of their data, the values of the envelope's own
        attributes, and the table with which their data is written as JSON; None: it is not.
        """
        known, (source, identity) = self._known[fetched], envelope
        if kind not in _TAGS or not 0 <= source < 0x80 or len(identity) > _LONGEST_IDENTITY:
            return
        if len(known) < _MOST_KNOWN:
            front = bytes((0x08, source)) if source else b""
            if identity:
                front += bytes((0x1A, len(identity))) + identity
            known[front + _TAGS[kind]] = told

    def take(
        self,
        frames: bytes,
        at: int,
        seq: int,
        received: str,
        out: list[Message],
        fetched: bool,  # noqa: FBT001  (by position: it is called very often)
    ) -> tuple[int, int]:
        """Append the messages of the records at `at` and behind it, and return the first not taken.

        That is its place in `frames` and its number; `seq` is the number of the one at `at`.
        """
        known = self._known[fetched]
        if self._compiled is None or not known:
            return at, seq
        found: tuple[int, int] = self._compiled.events(
            frames, at, seq, received, known, STATE_NAMES, self._type, out
        )
        return found
