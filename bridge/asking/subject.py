"""What is explained: a height or a hash, and how it is found in bytes and in messages.

Cheap first: most bytes do not hold the subject, and are never decoded.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from google.protobuf.descriptor import FieldDescriptor

from bridge.core.facts import FACTS
from bridge.errors import UsageError
from bridge.model import API_PEER, Kind
from bridge.pb.bridge.v1.gap_alert_pb2 import GapAlert

__all__ = ["Subject"]

_HASH = re.compile("[0-9a-fA-F]{64}")
_HEIGHT = re.compile("[0-9]{1,10}")
_HIGHEST = 2**32 - 1
_HEIGHT_TAGS = (0x08, 0x10, 0x18, 0x28)
"""Of the fields that hold heights: receipts and new blocks, minutes, anchors, headers of blocks."""

_OF_HEIGHT = frozenset(kind for kind, facts in FACTS.items() if "blockheight" in facts.extensions)


@dataclass(frozen=True)
class Subject:
    """A height, or a hash of 32 bytes: one of them is None."""

    height: int | None = None
    hash: bytes | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what `text` names.

        Raises:
            UsageError: it is neither.
        """
        if _HASH.fullmatch(text):
            return cls(hash=bytes.fromhex(text))
        if _HEIGHT.fullmatch(text) and int(text) <= _HIGHEST:
            return cls(height=int(text))
        raise UsageError(
            f"{text} is neither a height (0 to {_HIGHEST}) nor a hash (64 hexadecimal digits)"
        )

    def __str__(self) -> str:
        return self.hash.hex() if self.hash is not None else f"height {self.height}"

    @cached_property
    def _hashes(self) -> tuple[bytes, ...]:
        """The hash; and, as it may be a chain's id, its double hash, which chain commits carry."""
        assert self.hash is not None
        twice = hashlib.sha256(hashlib.sha256(self.hash).digest()).digest()
        return self.hash, twice

    @cached_property
    def needles(self) -> tuple[bytes, ...]:
        """What the bytes of a payload hold, one of them, that is about the subject.

        Empty where that cannot be told: height 0 is not written in protobuf.
        """
        if self.height is None:
            return (*self._hashes, *map(_base64, self._hashes))
        if self.height == 0:
            return ()
        number = _varint(self.height)
        return (
            *(bytes((tag,)) + number for tag in _HEIGHT_TAGS),
            b'Height":%d' % self.height,
            # It may lie between the heights that the alert tells of.
            Kind.GAP_ALERT.encode() + b"\0",
        )

    @property
    def peer(self) -> str | None:
        """The peer all of whose records are about the subject: what was fetched for a height."""
        return None if self.height is None else f"{API_PEER}/{self.height}"

    def within(self, payload: bytes) -> bool:
        """Whether `payload` may be about it."""
        return not self.needles or any(needle in payload for needle in self.needles)

    def named_by(self, kind: Kind, attributes: Mapping[str, str], data: bytes) -> bool:
        """Whether a published message may be about it."""
        if self.height is None:
            told = [hash_.hex() for hash_ in self._hashes]
            return (
                self.within(data)
                or any(each.encode() in data for each in told)
                or any(each in attributes.values() for each in told)
                or "dataref" in attributes
            )
        return kind is Kind.GAP_ALERT or attributes.get("blockheight") == str(self.height)

    def roles(self, kind: Kind, member: Any) -> tuple[str, ...]:
        """Return the fields of `member` that name the subject, by their paths; empty if none."""
        if self.height is None:
            return tuple(dict.fromkeys(_paths(member, self._hashes, "")))
        if kind is Kind.GAP_ALERT:
            covers = member.first_height <= self.height <= member.last_height
            return ("heights",) if covers and member.type == GapAlert.TYPE_GAP else ()
        if kind in _OF_HEIGHT and FACTS[kind].read(member)[1] == str(self.height):
            return ("height",)
        return ()


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*parts, number))


def _base64(hash_: bytes) -> bytes:
    return binascii.b2a_base64(hash_, newline=False)


def _paths(member: Any, hashes: tuple[bytes, ...], prefix: str) -> Iterator[str]:
    for field, value in member.ListFields():
        values = value if field.is_repeated else (value,)
        if field.type == FieldDescriptor.TYPE_BYTES:
            if any(hash_ in values for hash_ in hashes):
                yield prefix + field.name
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for each in values:
                yield from _paths(each, hashes, f"{prefix}{field.name}.")
