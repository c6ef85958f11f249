"""What is fuzzed: each target takes any bytes, and lets none but the promised errors out."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson

from bridge.core.binary.admin import AdminBlock
from bridge.core.binary.credits import CreditBlock
from bridge.core.binary.directory import DirectoryBlock
from bridge.core.binary.entries import Entry, EntryBlock
from bridge.core.binary.factoid import FactoidBlock
from bridge.core.datagrams import DatagramAssembler
from bridge.core.decode import decode
from bridge.core.framing import HEADER_BYTES, FrameDecoder, frame, split_frames
from bridge.core.peek import peek
from bridge.core.rebuild import RawHeight, rebuild
from bridge.errors import DecodeError, FrameError, NodeRefused, NodeUnavailable
from bridge.node import _bytes, _result
from tests.support.both_ways import hold_together
from tests.support.events import SMALL, small_capture
from tests.support.heights import extract

__all__ = ["TARGETS", "Target"]

_LIMIT = 4_096
_SIZE = struct.Struct("<H")
_PARTS = struct.Struct("<I")


@dataclass(frozen=True)
class Target:
    """One reader of bytes."""

    name: str
    run: Callable[[bytes], object]
    """Raises what is not promised."""
    seeds: Callable[[], Iterator[bytes]]


def _framing(data: bytes) -> None:
    """The first byte says how the rest is cut."""
    piece, stream = (data[0] if data else 0) + 1, data[1:]
    decoder, taken = FrameDecoder(max_payload=_LIMIT), b""
    try:
        for at in range(0, len(stream), piece):
            decoder.receive(stream[at : at + piece])
            while (found := decoder.take())[0]:
                count, frames = found
                assert len(list(split_frames(frames))) == count
                taken += frames
            assert decoder.pending < HEADER_BYTES + _LIMIT
        assert taken + b"".join(decoder._chunks) == stream
    except FrameError as error:
        assert stream[len(taken) :].startswith(error.sample)


def _datagrams(data: bytes) -> None:
    """Two bytes before each datagram say how long it is."""
    assembler = DatagramAssembler(max_payload=2 * _LIMIT)
    at = 0
    while at + 2 <= len(data):
        (size,) = _SIZE.unpack_from(data, at)
        datagram = data[at + 2 : at + 2 + size]
        at += 2 + size
        try:
            whole = assembler.receive(datagram)
        except FrameError:
            continue
        assert assembler.pending <= _LIMIT
        if whole is not None:
            assert len(list(split_frames(whole))) == 1


def _decode(payload: bytes) -> None:
    try:
        event = decode(payload)
    except DecodeError:
        return
    if event is not None:
        again = type(event.member).FromString(event.data)
        assert again.SerializeToString() == event.data


def _protobuf(data: bytes) -> None:
    if data[:1] != b"{":
        _decode(data)


def _json(data: bytes) -> None:
    _decode(b"{" + data)


def _compiled(payload: bytes) -> None:
    hold_together([payload], "tcp/1")


def _answer(data: bytes) -> None:
    try:
        result = _result("fuzz", 1, bytearray(data))
        _bytes("fuzz", result, "rawdata")
    except (NodeRefused, NodeUnavailable) as error:
        assert len(str(error)) < 1_000


_PARSERS: tuple[Any, ...] = (
    DirectoryBlock,
    AdminBlock,
    CreditBlock,
    FactoidBlock,
    EntryBlock,
    Entry,
)


def _binary(data: bytes) -> None:
    """The first byte says which part of a block the rest is."""
    kind, raw = _PARSERS[(data[0] if data else 0) % len(_PARSERS)], data[1:]
    try:
        part = kind.parse(raw)
        part.message()
        if kind is not Entry:
            part.hashes()
    except DecodeError:
        return
    assert part.raw == raw


def _rebuild(data: bytes) -> None:
    """Four bytes before each part say how long it is."""
    parts = [b""] * 4
    found, at = [], 0
    while at + 4 <= len(data):
        (size,) = _PARTS.unpack_from(data, at)
        found.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    directory, admin, credit, factoid = (found + parts)[:4]
    with suppress(DecodeError):
        rebuild(RawHeight(directory, admin, credit, factoid, tuple(found[4:])))


def _payloads() -> Iterator[bytes]:
    for name in SMALL:
        yield from {payload for payload in small_capture(name).payloads() if payload}


def _raws() -> Iterator[RawHeight]:
    return (height.raw for height in extract())


def _framing_seeds() -> Iterator[bytes]:
    for payload in _payloads():
        yield b"\x3f" + frame(payload[:_LIMIT]) + frame(b"{}")


def _datagram_seeds() -> Iterator[bytes]:
    for payload in _payloads():
        event = payload[: 2 * _LIMIT]
        head = len(event).to_bytes(4, "little") + event
        pieces = [b"\x01", head[:4096], head[4096:]]
        yield b"".join(_SIZE.pack(len(piece)) + piece for piece in pieces if piece)


def _answer_seeds() -> Iterator[bytes]:
    yield b'{"jsonrpc":"2.0","id":1,"error":{"code":-32008,"message":"Block not found","data":"x"}}'
    for raw in _raws():
        yield orjson.dumps({"jsonrpc": "2.0", "id": 1, "result": {"rawdata": raw.admin.hex()}})


def _binary_seeds() -> Iterator[bytes]:
    for height in extract():
        raw = height.raw
        for place, part in enumerate((raw.directory, raw.admin, raw.credit, raw.factoid)):
            yield bytes([place]) + part
        yield from (b"\x04" + block for block in raw.entry_blocks)
        yield from (b"\x05" + entry for entry in height.contents.values())


def _rebuild_seeds() -> Iterator[bytes]:
    for raw in _raws():
        parts = (raw.directory, raw.admin, raw.credit, raw.factoid, *raw.entry_blocks)
        yield b"".join(_PARTS.pack(len(part)) + part for part in parts)


TARGETS = (
    Target("framing", _framing, _framing_seeds),
    Target("datagrams", _datagrams, _datagram_seeds),
    Target("protobuf", _protobuf, lambda: (each for each in _payloads() if each[:1] != b"{")),
    Target("json", _json, lambda: (each[1:] for each in _payloads() if each[:1] == b"{")),
    Target("peek", peek, _payloads),
    Target("answer", _answer, _answer_seeds),
    Target("binary", _binary, _binary_seeds),
    Target("rebuild", _rebuild, _rebuild_seeds),
    Target("compiled", _compiled, _payloads),
)
