"""The node's API: wsapi v2, JSON-RPC over HTTP POST (factomd v6.5.2 to v6.17.1, `wsapi`).

Its answers are believed in nothing: they are bounded in size and time, no redirect is followed, and
no proxy of the environment is used.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import aiohttp
import orjson

from bridge.errors import NodeRefused, NodeUnavailable

__all__ = ["NodeApi", "open_node"]

_CONNECT_SECONDS, _TOTAL_SECONDS = 5, 30
_ANSWER_BYTES = 32 * 1024 * 1024
_CHUNK_BYTES = 65_536
_SENTENCE = 300


class NodeApi:
    """See `ports.Node`. Made by `open_node`."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session
        self._numbers = count(1)

    async def replay(self, first: int, last: int) -> None:
        """See `ports.Node`."""
        # An end of 0 would mean all up to the tip.
        await self._call("replay-from-height", startheight=first, endheight=max(last, 1))

    async def _call(self, method: str, **params: Any) -> Any:
        request = {"jsonrpc": "2.0", "id": next(self._numbers), "method": method, "params": params}
        try:
            async with self._session.post(
                self._url, data=orjson.dumps(request), allow_redirects=False
            ) as response:
                body = bytearray()
                async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                    body += chunk
                    if len(body) > _ANSWER_BYTES:
                        raise NodeUnavailable(f"{method}: the answer has more than 32 MiB")
                if response.status not in {200, 400}:
                    raise NodeUnavailable(f"{method}: HTTP status {response.status}")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            text = str(error) or type(error).__name__
            raise NodeUnavailable(f"{method}: {text[:_SENTENCE]}") from error
        return _result(method, request["id"], body)


def _result(method: str, number: Any, body: bytearray) -> Any:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise NodeUnavailable(f"{method}: the answer is no JSON") from error
    if not isinstance(answer, dict) or answer.get("id") != number:
        raise NodeUnavailable(f"{method}: the answer is to another question")
    if answer.get("error") is not None:
        raise NodeRefused(f"{method}: {str(answer['error'])[:_SENTENCE]}")
    return answer.get("result")


@asynccontextmanager
async def open_node(url: str) -> AsyncIterator[NodeApi]:
    """Yield the API at `url`; nothing is asked yet."""
    timeout = aiohttp.ClientTimeout(total=_TOTAL_SECONDS, sock_connect=_CONNECT_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
        yield NodeApi(url, session)
