"""What the binary forms are made of: numbers, hashes, and integers of variable length."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from google.protobuf.timestamp_pb2 import Timestamp

from bridge.core.hashing import HASH_BYTES
from bridge.errors import DecodeError

__all__ = [
    "INVALID_BINARY",
    "Reader",
    "exactly",
    "milliseconds",
    "number",
    "quirky_milliseconds",
    "quirky_timestamp",
    "refuse",
    "timestamp",
    "varint",
]

INVALID_BINARY = "invalid-binary"
"""Reason of the `DecodeError`s that the binary forms raise."""

_MAX_64 = 2**64 - 1
_SHOWN = 40
_MAX_PARTS = 100_000
_BYTES_PER_PART = 16
"""A true block of more parts than `_MAX_PARTS` has more bytes for each than this."""


def refuse(sentence: str) -> NoReturn:
    """Raise the one error that the binary forms know."""
    raise DecodeError(INVALID_BINARY, sentence)


def number(value: int, size: int) -> bytes:
    """Return `value` in `size` bytes."""
    try:
        return value.to_bytes(size, "big")
    except OverflowError:
        refuse(f"the number {value} does not fit in {size} bytes")


def exactly(value: bytes, size: int = HASH_BYTES) -> bytes:
    """Return `value`, which must have that size: else fields could change bytes among them."""
    if len(value) != size:
        refuse(f"a field of {len(value)} bytes where {size} belong")
    return value


def all_exactly(values: Iterable[bytes], size: int = HASH_BYTES) -> tuple[bytes, ...]:
    """Return `values`, each of which must have that size."""
    found = tuple(values)
    # To look at them one by one would take longer than all else that is done with them.
    for other in set(map(len, found)) - {size}:
        refuse(f"a field of {other} bytes where {size} belong")
    return found


def varint(value: int) -> bytes:
    """Return `value` as varInt_F: 7 bits a byte, the highest first, all but the last marked."""
    if not 0 <= value <= _MAX_64:
        refuse(f"the number {str(value)[:_SHOWN]} does not fit in 64 bits")
    out = [value & 0x7F]
    while value := value >> 7:
        out.append(value & 0x7F | 0x80)
    return bytes(reversed(out))


def timestamp(at: int) -> Timestamp:
    """Return `at` (milliseconds since 1970) as the node writes it for commits."""
    return Timestamp(seconds=at // 1000, nanos=at % 1000 * 1_000_000)


def milliseconds(at: Timestamp) -> int:
    """Return what `timestamp` was given."""
    if at.nanos % 1_000_000 or not 0 <= at.nanos < 1_000_000_000 or at.seconds < 0:
        refuse(f"a time of {at.seconds} s and {at.nanos} ns is none of whole milliseconds")
    return at.seconds * 1000 + at.nanos // 1_000_000


def quirky_timestamp(at: int) -> Timestamp:
    """Return `at` as the node writes it elsewhere: with nanoseconds 1,000 times too small."""
    return Timestamp(seconds=at // 1000, nanos=at % 1000 * 1000)


def quirky_milliseconds(at: Timestamp) -> int:
    """Return what `quirky_timestamp` was given; a node without the quirk is understood too."""
    if 0 < at.nanos < 1_000_000:
        return milliseconds(Timestamp(seconds=at.seconds, nanos=at.nanos * 1000))
    return milliseconds(at)


class Reader:
    """Takes parts from the front of `data`; past its end there is a `DecodeError`."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = bytes(data)
        self._at = 0

    @property
    def at(self) -> int:
        """How many bytes were taken."""
        return self._at

    @property
    def left(self) -> int:
        """How many bytes were not taken yet."""
        return len(self._data) - self._at

    def take(self, size: int = HASH_BYTES) -> bytes:
        """Return the next `size` bytes; without a size, a hash."""
        if size > self.left:
            refuse(f"{size} bytes should follow at byte {self._at}, {self.left} do")
        self._at += size
        return self._data[self._at - size : self._at]

    def since(self, start: int) -> bytes:
        """Return what was taken since `at` was `start`."""
        return self._data[start : self._at]

    def peek(self) -> int:
        """Return the next byte without taking it."""
        if not self.left:
            refuse(f"a byte should follow at byte {self._at}")
        return self._data[self._at]

    def number(self, size: int) -> int:
        """Return the next number of `size` bytes."""
        return int.from_bytes(self.take(size), "big")

    def varint(self) -> int:
        """Return the next varInt_F; one longer than need be is refused, as it cannot come back."""
        first = byte = self.number(1)
        value = byte & 0x7F
        while byte & 0x80:
            byte = self.number(1)
            value = value << 7 | byte & 0x7F
            if value > _MAX_64:
                refuse(f"an integer of more than 64 bits before byte {self._at}")
        if first == 0x80:
            refuse(f"an integer with leading zeros before byte {self._at}")
        return value

    def counted(self, count: int, least: int) -> range:
        """Return a range of `count`, of which each takes `least` bytes or more.

        So many tiny parts as no true block has are refused before each is given its memory.
        """
        if count * least > self.left or count > max(_MAX_PARTS, self.left // _BYTES_PER_PART):
            refuse(f"{count} parts should follow at byte {self._at}, in {self.left} bytes")
        return range(count)

    def constant(self, expected: bytes, what: str) -> None:
        """Take `expected`, which is the only value that may stand here."""
        found = self.take(len(expected))
        if found != expected:
            refuse(f"{what} is {found.hex()[: 2 * _SHOWN]}, expected {expected.hex()}")

    def expansion(self) -> bytes:
        """Return the header expansion area of a block; empty so far, in every known block."""
        return self.take(self.varint())

    def end(self) -> None:
        """Refuse bytes that are left over."""
        if self.left:
            refuse(f"{self.left} bytes follow the end")
