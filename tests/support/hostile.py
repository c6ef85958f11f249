"""What a hostile server answers in a node's place: no answer, another one, or a false one.

A lie is told by whatever has blocks, so it comes over the API and in replays alike.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import replace
from enum import Enum, auto
from typing import Any

import orjson
from aiohttp import web

from bridge.core.binary.commits import EntryCommit
from bridge.core.binary.directory import DirectoryBlock
from bridge.core.binary.entries import Entry, EntryBlock
from bridge.core.hashing import sha256
from bridge.emitter.archive import Archive, Saved
from bridge.emitter.block import Block

__all__ = ["SPOILT", "WITHOUT_ANSWER", "Hostile", "Lie", "OtherChain"]

_MIB = 1024 * 1024


class Hostile(Enum):
    """A way not to answer as a node does."""

    # Nothing that is an answer
    REDIRECT_TO_ITSELF = auto()
    REDIRECT_ELSEWHERE = auto()
    ENDLESS = auto()
    ENDLESS_HEAD = auto()
    DRIP = auto()
    """A byte now and then."""
    HANG = auto()
    RESET = auto()
    CUT = auto()
    """The connection ends in the middle of the answer."""
    HTML = auto()
    """A proxy's 502."""
    GZIP_BOMB = auto()
    """40 MB of spaces, compressed."""

    # The answer, spoilt
    GZIP = auto()
    """The true answer, compressed though nobody asked for that."""
    TRUNCATED = auto()
    DEEP = auto()
    """Brackets, 100,000 deep."""
    DEEP_ERROR = auto()
    """An error in which lists stand 900 deep: JSON reads that, a recursion may not."""
    MANY_PARTS = auto()
    """Empty lists, 30 MB of them."""
    WRONG_ID = auto()
    LONG_ERROR = auto()
    """1 MB of message, which begins with what a terminal obeys."""
    HUGE_NUMBERS = auto()
    WRONG_HEX = auto()
    WRONG_SHAPE = auto()

    # A lie
    HIGH_TIP = auto()
    """The highest height that there can be."""
    OTHER_HEIGHT = auto()
    """The block above, or below, of the one that is asked for; another entry or entry block."""
    REPARENTED = auto()
    """The block with another predecessor, hashed anew."""
    OTHER_CHAIN = auto()
    """All blocks of another chain: they link to each other, from their first one on."""
    FORGED_CREDITS = auto()
    """A commit more in the entry-credit block; the directory lists the true one."""


# -- nothing that is an answer


async def _redirect_to_itself(request: web.Request) -> web.StreamResponse:
    return web.Response(status=307, headers={"Location": str(request.url)})


async def _redirect_elsewhere(request: web.Request) -> web.StreamResponse:
    return web.Response(status=302, headers={"Location": str(request.url.with_path("/other"))})


async def _begun(request: web.Request, length: int | None = None) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_length = length
    await response.prepare(request)
    return response


async def _endless(request: web.Request) -> web.StreamResponse:
    response = await _begun(request)
    while True:
        await response.write(bytes(_MIB))


async def _endless_head(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.write(b"HTTP/1.1 200 OK\r\n")
    while not request.transport.is_closing():
        request.transport.write(b"X-More: and more\r\n" * 1000)
        await asyncio.sleep(0.001)
    return web.Response()


async def _drip(request: web.Request) -> web.StreamResponse:
    response = await _begun(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.02)


async def _hang(request: web.Request) -> web.StreamResponse:
    return await asyncio.Future()


def _break(request: web.Request) -> None:
    """Break the connection; what the client sees is a reset."""
    assert request.transport is not None
    # Closed without lingering, a socket says reset instead of goodbye.
    linger = struct.pack("ii", 1, 0)
    line = request.transport.get_extra_info("socket")
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    request.transport.abort()


async def _reset(request: web.Request) -> web.StreamResponse:
    _break(request)
    return web.Response()


async def _cut(request: web.Request) -> web.StreamResponse:
    response = await _begun(request, 1000)
    await response.write(b'{"jsonrpc":"2.0",')
    await asyncio.sleep(0.02)
    _break(request)
    return response


async def _html(request: web.Request) -> web.StreamResponse:
    body = "<html><body><h1>502 Bad Gateway</h1></body></html>"
    return web.Response(status=502, text=body, content_type="text/html")


async def _gzip_bomb(request: web.Request) -> web.StreamResponse:
    return web.Response(body=gzip.compress(b" " * 40_000_000), headers={"Content-Encoding": "gzip"})


WITHOUT_ANSWER: dict[Hostile, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {
    Hostile.REDIRECT_TO_ITSELF: _redirect_to_itself,
    Hostile.REDIRECT_ELSEWHERE: _redirect_elsewhere,
    Hostile.ENDLESS: _endless,
    Hostile.ENDLESS_HEAD: _endless_head,
    Hostile.DRIP: _drip,
    Hostile.HANG: _hang,
    Hostile.RESET: _reset,
    Hostile.CUT: _cut,
    Hostile.HTML: _html,
    Hostile.GZIP_BOMB: _gzip_bomb,
}
"""Handlers that give no answer."""


# -- the answer, spoilt


def _with(answer: Any, **members: Any) -> bytes:
    kept = {name: answer[name] for name in ("jsonrpc", "id")}
    return orjson.dumps(kept | members)


def _of_result(answer: Any, *, number: bytes = b"0", text: bytes = b"") -> bytes:
    """Return the answer with these in all members that a client looks at."""
    members = b'{"directoryblockheight":%s,"rawdata":"%s","data":"%s"}' % (number, text, text)
    return _with(answer, result=orjson.Fragment(members))


def _wrong_shape(answer: Any) -> bytes:
    return _with(answer, result={"rawdata": [1], "data": {}, "directoryblockheight": True})


def _long_error(answer: Any) -> bytes:
    error = {"code": -32603, "message": "\x1b[2J\r\n" + "x" * 1_000_000, "data": "y" * 1_000_000}
    return _with(answer, error=error)


def _deep_error(answer: Any) -> bytes:
    deep = orjson.Fragment(b"[" * 900 + b"]" * 900)
    return _with(answer, error={"code": deep, "message": deep, "data": deep})


SPOILT: dict[Hostile, Callable[[Any], bytes]] = {
    Hostile.GZIP: lambda answer: gzip.compress(orjson.dumps(answer)),
    Hostile.TRUNCATED: lambda answer: orjson.dumps(answer)[:-5],
    Hostile.DEEP: lambda answer: b"[" * 100_000 + b"]" * 100_000,
    Hostile.DEEP_ERROR: _deep_error,
    Hostile.MANY_PARTS: lambda answer: b"[" + b"[]," * 10_000_000 + b"1]",
    Hostile.WRONG_ID: lambda answer: orjson.dumps(answer | {"id": answer["id"] + 1}),
    Hostile.LONG_ERROR: _long_error,
    Hostile.HUGE_NUMBERS: lambda answer: _of_result(answer, number=b"9" * 300),
    Hostile.WRONG_HEX: lambda answer: _of_result(answer, text=b"not hex"),
    Hostile.WRONG_SHAPE: _wrong_shape,
}
"""What becomes of an answer."""


# -- a lie


class OtherChain:
    """The blocks of `archive` from another predecessor of the first on, hashed anew."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._directories: dict[int, DirectoryBlock] = {}

    def directory(self, height: int) -> DirectoryBlock:
        """Return the directory of `height`, of which there is a true one."""
        while height not in self._directories:
            lowest = height
            while lowest - 1 not in self._directories and self._archive.at(lowest - 1):
                lowest -= 1
            self._directories[lowest] = self._reparented(lowest)
        return self._directories[height]

    def _reparented(self, height: int) -> DirectoryBlock:
        block = self._archive.at(height)
        assert block is not None
        below = self._directories.get(height - 1)
        if below is None:
            return reparented(block.directory)
        hashes = below.hashes()
        return replace(
            block.directory,
            previous_key_merkle_root=hashes.key_merkle_root,
            previous_full_hash=hashes.full_hash,
        )


def reparented(directory: DirectoryBlock) -> DirectoryBlock:
    """Return `directory` as if it followed another block; its hashes hold."""
    made_up = sha256(directory.previous_key_merkle_root + b"another")
    return replace(directory, previous_key_merkle_root=made_up, previous_full_hash=made_up)


class Lie(Archive):
    """A true archive as `mode` shows it."""

    def __init__(self, mode: Hostile, archive: Archive, other: OtherChain) -> None:
        super().__init__()
        self._mode, self._archive, self._other = mode, archive, other
        self.tip = 2**32 - 1 if mode is Hostile.HIGH_TIP else archive.tip

    def at(self, height: int) -> Block | None:
        block = self._archive.at(height)
        if block is None:
            return None
        match self._mode:
            case Hostile.OTHER_HEIGHT:
                return self._archive.at(height + 1) or self._archive.at(height - 1)
            case Hostile.REPARENTED:
                return replace(block, directory=reparented(block.directory))
            case Hostile.OTHER_CHAIN:
                return replace(block, directory=self._other.directory(height))
            case Hostile.FORGED_CREDITS:
                return replace(block, credit=replace(block.credit, items=_forged(block)))
            case _:
                return block

    def find(self, key: bytes) -> Saved | None:
        found = self._archive.find(key)
        if found is None or self._mode is not Hostile.OTHER_HEIGHT:
            return found
        match found.part:
            case Entry() as entry:
                return Saved(replace(entry, content=entry.content + b"forged"), found.block)
            case EntryBlock() as block:
                return Saved(replace(block, height=block.height + 1), found.block)
            case _:
                return found


def _forged(block: Block) -> tuple[Any, ...]:
    made_up = sha256(b"forged" + block.height.to_bytes(4, "big"))
    at = block.directory.seconds * 1000
    return (EntryCommit(at, made_up, 1, made_up, bytes(64)), *block.credit.items)
