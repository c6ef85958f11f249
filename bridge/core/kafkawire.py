"""Writes messages as records of a Kafka batch, many at a time.

    length varint, attributes int8, time delta varint, offset delta varint, key, value,
    count of headers varint, headers: name, value

(Kafka's record format, version 2; varints are zigzag, each of key, value, name and value of a header
is its length as varint, -1 for none, and its bytes.) What all messages of a layout have in common is
written once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType

from bridge.core.native import native
from bridge.model import Layout, Message

__all__ = ["KafkaWire", "record"]

_MOST_LAYOUTS = 1_000
_NONE = b"\x01"
_Prepared = tuple[bytes, tuple[bytes, ...], bytes, int]
"""Headers that never differ, names of those that do, name of the number's header, how many."""


class KafkaWire:
    """Encodes what the journal of this `epoch` holds; slower without `compiled`."""

    def __init__(self, epoch: bytes, compiled: ModuleType | None = native) -> None:
        self._compiled = compiled
        self._epoch = epoch
        self._layouts: dict[Layout, _Prepared] = {}

    def records(self, messages: list[Message], at: int, most: int) -> tuple[bytes, int]:
        """Return the records of `messages` from `at` on, at least one, and the next place.

        They have no more than `most` bytes, unless the first alone has.
        """
        if self._compiled is not None:
            found: tuple[bytes, int] = self._compiled.records(
                messages, at, self._layouts, self._prepare, most
            )
            return found
        return self._records(messages, at, most)

    def _records(self, messages: Sequence[Message], at: int, most: int) -> tuple[bytes, int]:
        first, size = at, 0
        parts: list[bytes] = []
        for message in messages[at:]:
            prepared = self._layouts.get(message.layout) or self._prepare(message.layout)
            constants, names, seq, count = prepared
            headers = [
                name + _sized(value.encode())
                for name, value in zip(names, message.values, strict=True)
            ]
            body = b"".join(
                (
                    b"\0\0",
                    _varint(at - first),
                    _NONE if message.key is None else _sized(message.key.encode()),
                    _sized(message.data),
                    _varint(count),
                    constants,
                    seq + _sized(b"%d" % message.seq),
                    *headers,
                )
            )
            record = _sized(body)
            if parts and size + len(record) > most:
                break
            parts.append(record)
            size += len(record)
            at += 1
        return b"".join(parts), at

    def _prepare(self, layout: Layout) -> _Prepared:
        constant = {"bridge-epoch": self._epoch}
        for name, value in layout.constants:
            header = "content-type" if name == "datacontenttype" else f"ce_{name}"
            constant[header] = value.encode()
        if len(self._layouts) >= _MOST_LAYOUTS:
            self._layouts.clear()
        prepared = self._layouts[layout] = (
            b"".join(_sized(name.encode()) + _sized(value) for name, value in constant.items()),
            tuple(_sized(f"ce_{name}".encode()) for name in layout.names),
            _sized(b"bridge-seq"),
            len(constant) + 1 + len(layout.names),
        )
        return prepared


def record(key: bytes, value: bytes, headers: Mapping[str, bytes]) -> bytes:
    """Return a record that is alone in its batch."""
    named = [_sized(name.encode()) + _sized(content) for name, content in headers.items()]
    start = b"\0\0\0" + _sized(key) + _varint(len(value))
    return _sized(b"".join((start, value, _varint(len(named)), *named)))


def _varint(value: int) -> bytes:
    left, out = value << 1, bytearray()
    while left >= 0x80:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    out.append(left)
    return bytes(out)


def _sized(data: bytes) -> bytes:
    return _varint(len(data)) + data
