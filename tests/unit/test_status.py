"""`status`: what is served, and that nobody can hold the server up."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import web

from bridge.errors import PortInUse
from bridge.health import Health
from bridge.metrics import Metrics
from bridge.settings import StatusSettings
from bridge.status import open_status

_BIG = 16 * 1024 * 1024
_REQUEST = b"GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n"


def _pages(app: web.Application) -> None:
    async def big(_request: web.Request) -> web.Response:
        return web.Response(body=bytes(_BIG))

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(10):
            await response.write(b"tick\n")
            await asyncio.sleep(0.2)
        return response

    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    app.router.add_get("/big", big)
    app.router.add_get("/stream", stream)
    app.router.add_post("/echo", echo)


class _Server:
    def __init__(self, port: int, metrics: Metrics) -> None:
        self.port = port
        self._metrics = metrics

    def refused(self, reason: str) -> float:
        found = self._metrics.registry.get_sample_value("bridge_refused_total", {"reason": reason})
        return found or 0

    async def ask(self, path: str, host: str = "127.0.0.1", **headers: str) -> tuple[int, bytes]:
        more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        request = _REQUEST % (
            path.encode(),
            host.encode(),
            more.encode() + b"Connection: close\r\n",
        )
        answer = await self.raw(request)
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body

    async def raw(self, sent: bytes) -> bytes:
        """Send, and return all that comes until the server closes."""
        async with self.connection() as (reader, writer):
            writer.write(sent)
            return await asyncio.wait_for(reader.read(), 10)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


@asynccontextmanager
async def _serving(health: Health | None = None, **settings: Any) -> AsyncIterator[_Server]:
    metrics = Metrics()
    given = StatusSettings(port=0, **settings)
    async with open_status(given, health or Health(), metrics, [_pages]) as port:
        yield _Server(port, metrics)


async def _closed_after(reader: asyncio.StreamReader) -> float:
    """Return the seconds until the server closed."""
    start = time.monotonic()
    with suppress(ConnectionError):
        await asyncio.wait_for(reader.read(), 10)
    return time.monotonic() - start


async def test_health_and_readiness_and_metrics_are_told() -> None:
    health = Health()
    health.told("feed", "receiving", ready=True)
    async with _serving(health) as server:
        assert (await server.ask("/healthz"))[0] == 200
        assert (await server.ask("/readyz"))[0] == 200
        health.told("kafka", "away", cause="connection refused")
        status, body = await server.ask("/readyz")
        assert status == 503
        assert json.loads(body)["parts"]["kafka"]["cause"] == "connection refused"
        assert (await server.ask("/healthz"))[0] == 200
        status, body = await server.ask("/metrics")
        assert status == 200
        assert b"bridge_refused_total" in body


async def test_of_the_metrics_those_are_told_that_are_asked_for() -> None:
    async with _serving() as server:
        asked = "name[]=bridge_height_highest&name[]=bridge_heights_missing"
        status, body = await server.ask(f"/metrics?{asked}")
        assert status == 200
        told = {line.split()[0] for line in body.decode().splitlines() if line[0] != "#"}
        assert told == {"bridge_height_highest", "bridge_heights_missing"}
        assert await server.ask("/metrics?name[]=unheard_of") == (200, b"")


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost", 200), ("127.0.0.1:8060", 200), ("[::1]:8060", 200), ("evil.example", 403)],
)
async def test_a_page_of_another_site_reads_nothing(host: str, status: int) -> None:
    async with _serving() as server:
        assert (await server.ask("/metrics", host))[0] == status
        assert server.refused("status-foreign-host") == (status == 403)


async def test_a_token_is_asked_for_where_one_is_set() -> None:
    async with _serving(token="s3cret") as server:
        assert (await server.ask("/metrics"))[0] == 401
        assert (await server.ask("/metrics", Authorization="Bearer wr0ng"))[0] == 401
        assert (await server.ask("/metrics", Authorization="Bearer s3cret"))[0] == 200
        assert server.refused("status-unauthorized") == 2


async def test_a_port_in_use_is_told() -> None:
    async with _serving() as server:
        with pytest.raises(PortInUse, match="BRIDGE_STATUS__PORT"):
            async with open_status(StatusSettings(port=server.port), Health(), Metrics()):
                pass


@pytest.mark.parametrize(
    "begun",
    [b"", b"GET", b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "],
    ids=["nothing", "a word", "half a head"],
)
async def test_a_head_that_stays_unfinished_is_given_up(begun: bytes) -> None:
    async with _serving(request_seconds=0.5) as server:
        async with server.connection() as (reader, writer):
            writer.write(begun)
            assert 0.3 < await _closed_after(reader) < 3
        assert server.refused("status-late") == bool(begun)


async def test_a_head_that_comes_byte_by_byte_is_given_up_all_the_same() -> None:
    async with _serving(request_seconds=0.5) as server, server.connection() as (reader, writer):
        closed = asyncio.create_task(_closed_after(reader))
        while not closed.done():
            writer.write(b"G")
            await asyncio.sleep(0.05)
        assert await closed < 3


async def test_a_body_that_stays_unfinished_is_given_up() -> None:
    async with _serving(request_seconds=0.5) as server, server.connection() as (reader, writer):
        head = b"Content-Length: 10\r\n"
        writer.write(_REQUEST.replace(b"GET", b"POST") % (b"/echo", b"localhost", head) + b"12345")
        assert 0.3 < await _closed_after(reader) < 3


async def test_a_reader_that_does_not_read_is_given_up() -> None:
    async with _serving(request_seconds=0.5) as server, server.connection() as (reader, writer):
        writer.write(_REQUEST % (b"/big", b"localhost", b""))
        await asyncio.sleep(2)
        with suppress(ConnectionError):
            assert len(await asyncio.wait_for(reader.read(), 5)) < _BIG
        assert server.refused("status-late") == 1


async def test_a_page_that_goes_on_is_not_cut_while_it_is_read() -> None:
    async with _serving(request_seconds=0.5) as server:
        status, body = await server.ask("/stream")
    assert (status, body.count(b"tick")) == (200, 10)


async def test_a_connection_serves_again_and_is_closed_when_idle() -> None:
    async with _serving(request_seconds=0.5) as server, server.connection() as (reader, writer):
        for _ in range(4):
            writer.write(_REQUEST % (b"/healthz", b"localhost", b""))
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
            await reader.readuntil(b"}")
            await asyncio.sleep(0.2)
        assert 0.1 < await _closed_after(reader) < 3
        assert server.refused("status-late") == 0, "that is no refusal"


async def test_bodies_are_bounded() -> None:
    async with _serving() as server:
        post = _REQUEST.replace(b"GET", b"POST")
        for size, status in ((1_024, b"200"), (1_025, b"413"), (10_000_000, b"413")):
            head = b"Content-Length: %d\r\nConnection: close\r\n" % size
            answer = await server.raw(
                post % (b"/echo", b"localhost", head) + bytes(min(size, 2_000))
            )
            assert answer.split()[1] == status
        chunks = b"Transfer-Encoding: chunked\r\n"
        sent = post % (b"/echo", b"localhost", chunks) + b"400\r\n%s\r\n" % bytes(1_024) * 3
        assert (await server.raw(sent)).split()[1] == b"413"


@pytest.mark.parametrize(
    "head",
    [
        b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"a" * 9_000),
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: %s\r\n\r\n" % (b"a" * 9_000),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: 1\r\n" * 100 + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
    ids=["long line", "long field", "many fields", "no HTTP"],
)
async def test_a_head_too_large_or_none_is_refused(head: bytes) -> None:
    async with _serving(request_seconds=1) as server:
        assert (await server.raw(head)).split()[1:2] == [b"400"]
        assert (await server.ask("/healthz"))[0] == 200


async def test_a_connection_too_many_is_closed_and_others_are_served() -> None:
    async with (
        _serving(max_connections=2) as server,
        server.connection() as (_, first),
        server.connection(),
    ):
        # The server counts a connection when its loop turns.
        await asyncio.sleep(0.05)
        async with server.connection() as (reader, _):
            assert await _closed_after(reader) < 1
        assert server.refused("status-too-many-connections") == 1
        first.close()
        await asyncio.sleep(0.05)
        assert (await server.ask("/healthz"))[0] == 200
