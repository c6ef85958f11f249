"""The node's API client, against a real HTTP server that answers as it should not."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from bridge.errors import NodeRefused, NodeUnavailable
from bridge.node import open_node

Answer = Callable[[dict[str, Any]], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[str]:
    async def handle(request: web.Request) -> web.StreamResponse:
        return await answer(await request.json())

    app = web.Application()
    app.router.add_post("/v2", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v2"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("first", "last", "end"), [(4, 26, 26), (0, 0, 1), (7, 7, 7)], ids=["page", "genesis", "one"]
)
async def test_it_asks_as_the_node_understands(first: int, last: int, end: int) -> None:
    asked: list[dict[str, Any]] = []

    async def answer(request: dict[str, Any]) -> web.Response:
        asked.append(request)
        result = {"message": "ok", "startheight": first, "endheight": end}
        return web.json_response({"jsonrpc": "2.0", "id": request["id"], "result": result})

    async with answering(answer) as url, open_node(url) as node:
        await node.replay(first, last)

    (request,) = asked
    assert request["method"] == "replay-from-height"
    assert request["params"] == {"startheight": first, "endheight": end}


async def _refusal(request: dict[str, Any]) -> web.Response:
    error = {"code": -32602, "message": "Invalid params", "data": "x" * 10_000}
    body = {"jsonrpc": "2.0", "id": request["id"], "error": error}
    return web.Response(status=400, text=json.dumps(body))


async def test_the_nodes_own_words_are_in_the_error_and_bounded() -> None:
    async with answering(_refusal) as url, open_node(url) as node:
        with pytest.raises(NodeRefused, match="Invalid params") as caught:
            await node.replay(1, 2)
    assert len(str(caught.value)) < 500


def _with(body: bytes = b"{}", status: int = 200, encoding: str = "identity") -> Answer:
    async def answer(_request: dict[str, Any]) -> web.Response:
        return web.Response(status=status, body=body, headers={"Content-Encoding": encoding})

    return answer


async def _endless(_request: dict[str, Any]) -> web.StreamResponse:
    raise web.HTTPFound("/elsewhere")


@pytest.mark.parametrize(
    "answer",
    [
        _with(b"no JSON"),
        _with(b"[]"),
        _with(b'{"id":999,"result":{}}'),
        _with(status=500),
        _with(gzip.compress(b" " * 40_000_000), encoding="gzip"),
        _endless,
    ],
    ids=["no JSON", "no object", "another id", "status 500", "a bomb", "a redirect"],
)
async def test_an_answer_that_is_none_is_told_as_such(answer: Answer) -> None:
    async with answering(answer) as url, open_node(url) as node:
        with pytest.raises(NodeUnavailable):
            await node.replay(1, 2)


async def test_a_node_that_is_away_is_told_as_such() -> None:
    async with open_node("http://127.0.0.1:1/v2") as node:
        with pytest.raises(NodeUnavailable):
            await asyncio.wait_for(node.replay(1, 2), 10)
