"""Small records of one size by height, in chunks: what is kept of every height, however many.

A chunk is one item of the journal (`ports.Journal.advance`), so noting a height costs the same at
the first block and at the millionth, and all heights of a long chain are read in milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

__all__ = ["Table"]

_CHUNK = 256
"""Heights in one chunk: what is written again for each height that is noted."""


class Table:
    """Records of `width` bytes; one of zeros is none."""

    def __init__(self, prefix: str, width: int, items: Iterable[tuple[str, bytes]] = ()) -> None:
        """Take what was stored under names that begin with `prefix` and a slash; pass over others."""
        self._prefix = f"{prefix}/"
        self._width = width
        self._none = bytes(width)
        self._chunks: dict[int, bytearray] = {}
        self._changed: set[int] = set()
        for name, value in items:
            if name.startswith(self._prefix):
                self._chunks[int(name.removeprefix(self._prefix), 16)] = bytearray(value)

    def get(self, height: int) -> bytes:
        """Return the record of `height`; zeros where there is none."""
        number, place = divmod(height, _CHUNK)
        chunk = self._chunks.get(number)
        if chunk is None:
            return self._none
        at = place * self._width
        return bytes(chunk[at : at + self._width])

    def put(self, height: int, record: bytes) -> None:
        """Note `record` for `height`."""
        number, place = divmod(height, _CHUNK)
        chunk = self._chunks.get(number)
        if chunk is None:
            chunk = self._chunks[number] = bytearray(_CHUNK * self._width)
        at = place * self._width
        chunk[at : at + self._width] = record
        self._changed.add(number)

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Yield heights, ascending, with their records, where there is one."""
        width, none = self._width, self._none
        for number in sorted(self._chunks):
            chunk = self._chunks[number]
            for place in range(_CHUNK):
                record = bytes(chunk[place * width : (place + 1) * width])
                if record != none:
                    yield number * _CHUNK + place, record

    def take(self) -> dict[str, bytes]:
        """Return the items that changed since the last time."""
        changed = {f"{self._prefix}{n:06x}": bytes(self._chunks[n]) for n in self._changed}
        self._changed.clear()
        return changed
