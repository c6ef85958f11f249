"""Sorts messages by kind: kinds are few, so what is asked of each costs nothing per message."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

from bridge.core.native import native
from bridge.model import Kind, Layout, Message

__all__ = ["ByKind", "by_kind"]


class ByKind(NamedTuple):
    """Some messages by kind, each kind's in their order."""

    messages: dict[Kind, list[Message]]
    largest: int
    """Bytes of the largest data among them; 0 where there are none."""


def by_kind(messages: Sequence[Message], compiled: ModuleType | None = native) -> ByKind:
    """Return `messages` by kind. Without `compiled` it does the same, slower."""
    if compiled is not None:
        return ByKind(*compiled.by_kind(messages))
    found: dict[Kind, list[Message]] = {}
    of_layouts: dict[Layout, list[Message]] = {}
    for message in messages:
        layout = message.layout
        if layout not in of_layouts:
            of_layouts[layout] = found.setdefault(layout.kind, [])
        of_layouts[layout].append(message)
    return ByKind(found, max([message.data_size for message in messages], default=0))
