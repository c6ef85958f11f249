"""The groups that were committed last, for readers that keep up: they need not ask the disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import dropwhile

from bridge.model import Group

__all__ = ["Hot"]


class Hot:
    """At most `most_bytes` of groups, without a hole between them."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._groups: deque[Group] = deque()
        self._bytes = 0

    def add(self, groups: Iterable[Group]) -> None:
        """Take what was committed, ascending; what is older gives way."""
        for group in groups:
            if self._groups and self._groups[-1].last + 1 != group.first:
                self._groups.clear()
                self._bytes = 0
            self._groups.append(group)
            self._bytes += _bytes_of(group)
            while self._bytes > self._most_bytes:
                self._bytes -= _bytes_of(self._groups.popleft())

    def read(self, after: int, max_bytes: int) -> list[Group]:
        """Return what `ports.Journal.read` gives; nothing where the disk must be asked."""
        if not self._groups or self._groups[0].first > after + 1:
            return []
        found: list[Group] = []
        size = 0
        for group in dropwhile(lambda each: each.last <= after, self._groups):
            size += _bytes_of(group)
            if found and size > max_bytes:
                break
            found.append(group)
        return found


def _bytes_of(group: Group) -> int:
    return sum([len(run.frames) for run in group.runs])
