"""The node's API: wsapi v2, JSON-RPC over HTTP POST (factomd v6.5.2 to v6.17.1, `wsapi`).

Its answers are believed in nothing: they are bounded in size, in parts and in time, no redirect is
followed, no proxy of the environment is used, and nothing is decompressed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, TypeVar

import aiohttp
import orjson

from bridge.errors import NodeRefused, NodeUnavailable

__all__ = ["NodeApi", "open_node"]

_CONNECT_SECONDS, _TOTAL_SECONDS = 5, 30
_CONNECTIONS = 4
_ANSWER_BYTES = 32 * 1024 * 1024
_ANSWER_PARTS = 500_000
"""Commas and opening brackets: nothing but these makes values out of bytes. The densest answers, of
blocks full of transactions, have one in 60 bytes."""
_HELD_BYTES = 48 * 1024 * 1024
"""Of all answers under way together."""
_CHUNK_BYTES = 65_536
_SENTENCE = 300
_MAX_HEIGHT = 2**32 - 1

_Value = TypeVar("_Value", int, str)


class NodeApi:
    """See `ports.Node`. Made by `open_node`."""

    def __init__(self, url: str, session: aiohttp.ClientSession, pace: _Pace) -> None:
        self._url = url
        self._session = session
        self._pace = pace
        self._numbers = count(1)
        self._held = 0
        """Bytes of all answers under way."""

    async def tip(self) -> int:
        """See `ports.Node`."""
        heights = await self._call("heights")
        height = _member("heights", heights, "directoryblockheight", int)
        if not 0 <= height <= _MAX_HEIGHT:
            raise NodeUnavailable("heights: the answer has a height that none can be")
        return height

    async def parts(self, height: int) -> tuple[bytes, bytes, bytes, bytes]:
        """See `ports.Node`."""
        kinds = ("dblock", "ablock", "ecblock", "fblock")
        try:
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(self._part(kind, height)) for kind in kinds]
        except ExceptionGroup as failed:
            # The first cancelled the others.
            raise failed.exceptions[0] from None
        directory, admin, credit, factoid = (task.result() for task in asked)
        return directory, admin, credit, factoid

    async def raw(self, hash_: bytes) -> bytes:
        """See `ports.Node`."""
        return await self._read("raw-data", "data", hash=hash_.hex())

    async def replay(self, first: int, last: int) -> None:
        """See `ports.Node`."""
        # An end of 0 would mean all up to the tip.
        method = "replay-from-height"
        asked = await self._call(method, startheight=first, endheight=max(last, 1))
        _member(method, asked, "message", str)

    async def _part(self, kind: str, height: int) -> bytes:
        return await self._read(f"{kind}-by-height", "rawdata", height=height)

    async def _read(self, method: str, name: str, **params: int | str) -> bytes:
        try:
            return _bytes(method, await self._call(method, **params), name)
        except NodeUnavailable:
            # A height takes many answers: of a node that fails now and then, none would be complete.
            return _bytes(method, await self._call(method, **params), name)

    async def _call(self, method: str, **params: int | str) -> Any:
        await self._pace.turn()
        request = {"jsonrpc": "2.0", "id": next(self._numbers), "method": method, "params": params}
        body = bytearray()
        try:
            async with self._session.post(
                self._url, data=orjson.dumps(request), allow_redirects=False
            ) as response:
                if response.status not in {200, 400}:
                    raise NodeUnavailable(f"{method}: HTTP status {response.status}")
                async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                    body += chunk
                    self._held += len(chunk)
                    if len(body) > _ANSWER_BYTES:
                        raise NodeUnavailable(f"{method}: the answer has more than 32 MiB")
                    if self._held > _HELD_BYTES:
                        raise NodeUnavailable(f"{method}: too many large answers at once")
            return _result(method, request["id"], body)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            text = _shown(str(error)) or type(error).__name__
            raise NodeUnavailable(f"{method}: {text}") from error
        finally:
            self._held -= len(body)
            # An error that is kept somewhere keeps its frame, and what that holds.
            body.clear()


class _Pace:
    """Lets requests through evenly; those that come faster wait in line."""

    def __init__(self, per_second: float) -> None:
        self._seconds = 1 / per_second
        self._next = 0.0

    async def turn(self) -> None:
        now = asyncio.get_running_loop().time()
        mine = max(now, self._next)
        self._next = mine + self._seconds
        if mine > now:
            await asyncio.sleep(mine - now)


def _result(method: str, number: object, body: bytearray) -> Any:
    if sum(map(body.count, (b",", b"{", b"["))) > _ANSWER_PARTS:
        raise NodeUnavailable(f"{method}: the answer has more than {_ANSWER_PARTS:,} parts")
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise NodeUnavailable(f"{method}: the answer is no JSON") from error
    if not isinstance(answer, dict) or answer.get("id") != number:
        raise NodeUnavailable(f"{method}: the answer is to another question")
    refused = answer.get("error")
    if refused is not None:
        raise _refusal(method, refused)
    return answer.get("result")


def _refusal(method: str, error: object) -> NodeRefused:
    """Return what the node's error says: its number, and its words as far as they are words."""
    told = error if isinstance(error, dict) else {"message": error}
    number = told.get("code")
    words = [told.get(name) for name in ("message", "data")]
    text = ": ".join(_shown(each) for each in words if isinstance(each, str) and each)
    return NodeRefused(
        f"{method}: {text or 'an error without words'}", number if type(number) is int else None
    )


def _shown(text: str) -> str:
    """Return `text` as it may stand in a line, on a terminal too."""
    return "".join(each if each.isprintable() else " " for each in text[:_SENTENCE])


def _bytes(method: str, result: object, name: str) -> bytes:
    try:
        return bytes.fromhex(_member(method, result, name, str))
    except ValueError as error:
        raise NodeUnavailable(f"{method}: the answer's {name} is no hex") from error


def _member(method: str, result: object, name: str, kind: type[_Value]) -> _Value:
    value = result.get(name) if isinstance(result, dict) else None
    # A JSON true is an int to Python.
    if type(value) is not kind:
        raise NodeUnavailable(f"{method}: the answer has no {name}")
    return value


@asynccontextmanager
async def open_node(
    url: str, requests_per_second: float = 100, *, total_seconds: float = _TOTAL_SECONDS
) -> AsyncIterator[NodeApi]:
    """Yield the API at `url`; nothing is asked yet.

    Args:
        url: of the API, `http://HOST:8088/v2`.
        requests_per_second: at most so many requests, evenly spaced.
        total_seconds: how long an answer may take, the wait for a connection included.
    """
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=_CONNECTIONS),
        timeout=aiohttp.ClientTimeout(total=total_seconds, sock_connect=_CONNECT_SECONDS),
        headers={"Accept-Encoding": "identity"},
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    ) as session:
        yield NodeApi(url, session, _Pace(requests_per_second))
