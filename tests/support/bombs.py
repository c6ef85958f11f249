"""Payloads of the permitted maximum, each made to cost its reader as much as can be.

All are refused in the end: those that are well formed up to there are damaged in their last bytes,
or of the wrong type, so that all of the work is done first.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import count

__all__ = ["BOMBS", "LARGEST_BYTES"]

LARGEST_BYTES = 32 * 1024 * 1024
_MOST_PARTS = 690_000
"""Just below what `core.decode` lets pass to the parser for a payload of this size."""
_MOST_IN_JSON = 249_000
"""The same for JSON."""


def _varint(value: int) -> bytes:
    low, value = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(value) if value else bytes([low])


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _block(parts: bytes) -> bytes:
    """Return a directory block with `parts`, of the full size, and cut off."""
    padding = _field(99, bytes(LARGEST_BYTES - len(parts) - 100))
    return _field(8, parts + padding)[:-1]


def _filled(begin: bytes, each: bytes, end: bytes) -> bytes:
    return begin + each * ((LARGEST_BYTES - len(begin) - len(end)) // len(each)) + end


def _padded(begin: bytes, values: Iterator[bytes], most: int, end: bytes) -> bytes:
    """Return JSON with as many values as are let pass, and a long text that makes up the size."""
    body = begin + b",".join([value for value, _ in zip(values, range(most), strict=False)]) + end
    return body + b',"pad":"' + b"x" * (LARGEST_BYTES - len(body) - 20) + b'","Event":7}'


def _keys() -> Iterator[bytes]:
    return (b'"%d":0' % number for number in count())


def _every(value: bytes) -> Iterator[bytes]:
    return (value for _ in count())


BOMBS: dict[str, Callable[[], bytes]] = {
    "protobuf: noise": lambda: random.Random(1).randbytes(LARGEST_BYTES),
    "protobuf: empty entries": lambda: _field(8, b"\x32\x00" * (LARGEST_BYTES // 2 - 10)),
    "protobuf: empty entries, as many as pass": lambda: _block(b"\x32\x00" * _MOST_PARTS),
    "protobuf: nested entries, as many as pass": lambda: _block(
        b"\x0a\x02\x12\x00" * (_MOST_PARTS // 2)
    ),
    "protobuf: empty external ids": lambda: _field(
        6, _field(2, b"\x12\x00" * (LARGEST_BYTES // 2 - 10))
    ),
    "protobuf: external ids, as many as pass": lambda: _field(
        6, _field(2, b"\x12\x00" * (2 * _MOST_PARTS) + b"\x1a" + b"\xff" * 9)
    ),
    "protobuf: unknown fields": lambda: b"\x78\x00" * (LARGEST_BYTES // 2),
    "protobuf: unknown groups": lambda: b"\x73" * LARGEST_BYTES,
    "protobuf: one varint": lambda: b"\x08" + b"\xff" * (LARGEST_BYTES - 1),
    "protobuf: text that is no UTF-8": lambda: _field(2, b"\xff" * (LARGEST_BYTES - 6)),
    "JSON: nested lists": lambda: b'{"a":' + b"[" * (LARGEST_BYTES - 5),
    "JSON: nested objects": lambda: _filled(b"", b'{"a":', b""),
    "JSON: brackets in a text": lambda: _filled(b'{"Event":"', b"[", b'"}'),
    "JSON: escapes": lambda: _filled(b'{"Event":"', b"\\u0001", b'"}'),
    "JSON: quotes in a text": lambda: _filled(b'{"Event":"', b'\\"', b'"}'),
    "JSON: wide text": lambda: (
        '{"Event":"\U0001f4a3'.encode() + b"x" * (LARGEST_BYTES - 20) + b'"}'
    ),
    "JSON: empty objects": lambda: _filled(b'{"a":[', b"{},", b"{}]}"),
    "JSON: objects, as many as pass": lambda: _padded(
        b'{"a":[', _every(b"{}"), _MOST_IN_JSON, b"]"
    ),
    "JSON: numbers, as many as pass": lambda: _padded(
        b'{"a":[', _every(b"257"), _MOST_IN_JSON, b"]"
    ),
    "JSON: texts, as many as pass": lambda: _padded(
        b'{"a":[', (b'"%d"' % number for number in count()), _MOST_IN_JSON - 10, b"]"
    ),
    "JSON: keys, as many as pass": lambda: _padded(b'{"a":{', _keys(), _MOST_IN_JSON - 10, b"}"),
    "JSON: one key again and again": lambda: _padded(
        b'{"a":{', _every(b'"k":0'), _MOST_IN_JSON - 10, b"}"
    ),
    "JSON: entries, as many as pass": lambda: _padded(
        b'{"Event":{"directoryBlockCommit":{"entryBlockEntries":[',
        _every(b'{"version":1}'),
        _MOST_IN_JSON - 10,
        b"]}}",
    ),
    "JSON: a long number": lambda: _filled(b'{"eventSource":', b"9", b"}"),
    "JSON: spaces": lambda: _filled(b"{", b" ", b""),
    "JSON: no base64": lambda: _filled(
        b'{"Event":{"entryReveal":{"entry":{"content":"', b"A", b'!"}}}}'
    ),
}
"""What makes each, by its name."""
