"""Remembers which commits and reveals came lately, in bounded memory.

A row of the state holds the identities of one step, 8 bytes each; few ones are gathered in one row,
so that a quiet feed does not leave a row for each second.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from types import ModuleType

from bridge.core.native import native

__all__ = ["Seen", "remember"]

_PREFIX = "seen/"
_ROW = 512
"""A row of fewer identities than this is written again with those that follow."""


class Seen:
    """The latest `most` identities or a few more, first in, first out (`core.peek`).

    What fell out is taken for something that never came. That leads to a needless recovery, which
    is a message more with the block's own times, and never to a loss that nobody is told of.
    """

    def __init__(self, items: Iterable[tuple[str, bytes]], most: int = 250_000) -> None:
        """Take what was stored; pass over the items of others."""
        self._most = most
        self._rows: OrderedDict[int, bytes] = OrderedDict()
        """Identities, packed, by the journal's number at which the row began."""
        self._known: set[int] = set()
        self._changed: dict[str, bytes | None] = {}
        for name, row in sorted(item for item in items if item[0].startswith(_PREFIX)):
            self._rows[int(name.removeprefix(_PREFIX), 16)] = row
            self._known.update(_unpacked(row))

    def __contains__(self, identity: int) -> bool:
        """Say whether it came lately."""
        return identity in self._known

    def lacking(self, identities: Iterable[int]) -> set[int]:
        """Return those that did not come lately."""
        known = self._known
        return {each for each in identities if each not in known}

    def saw(self, seq: int, ids: Sequence[int]) -> None:
        """Note `ids`, in their order; `seq` is a number of the journal, and never falls."""
        known, new = self._known, remember(self._known, ids)
        if not new:
            return
        begun = next(reversed(self._rows), None)
        if begun is None or len(self._rows[begun]) >= 8 * _ROW:
            begun = seq
        row = self._rows[begun] = self._rows.get(begun, b"") + new
        self._changed[_name(begun)] = row
        while len(self._rows) > 1:
            oldest = next(iter(self._rows))
            if len(known) - len(self._rows[oldest]) // 8 < self._most:
                break
            known.difference_update(_unpacked(self._rows.pop(oldest)))
            self._changed[_name(oldest)] = None

    def take(self) -> dict[str, bytes | None]:
        """Return the items that changed since the last time."""
        changed, self._changed = self._changed, {}
        return changed


def remember(known: set[int], ids: Sequence[int], compiled: ModuleType | None = native) -> bytes:
    """Add `ids` to `known`, and return those that it did not have, packed. Slower without `compiled`."""
    if compiled is not None:
        found: bytes = compiled.remember(known, ids)
        return found
    new = [each for each in dict.fromkeys(ids) if each not in known]
    known.update(new)
    return struct.pack(f"<{len(new)}Q", *new)


def _name(seq: int) -> str:
    return f"{_PREFIX}{seq:016x}"


def _unpacked(row: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(row) // 8}Q", row)
