"""Connecting to NATS: whatever comes of it, nothing is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats.errors
import pytest
from nats.aio.client import Client

from bridge.settings import NatsSettings
from bridge.sinks.nats_connection import open_client

_SECONDS = 30


@asynccontextmanager
async def _mute_server(says: bytes = b"") -> AsyncIterator[tuple[str, asyncio.Queue[bytes]]]:
    """Yield the address of a server that hangs, and what each of its clients said to its end."""
    ended: asyncio.Queue[bytes] = asyncio.Queue()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        ended.put_nowait(await reader.read())
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}", ended


async def _open(url: str) -> Client:
    async def ignored(*_: object) -> None: ...

    return await open_client(NatsSettings(servers=(url,)), ignored, ignored)


async def test_the_connection_to_a_server_that_hangs_is_closed_when_it_is_given_up() -> None:
    async with _mute_server() as (url, ended):
        with pytest.raises((nats.errors.Error, OSError, TimeoutError)):
            await _open(url)
        assert await asyncio.wait_for(ended.get(), _SECONDS) == b""


@pytest.mark.parametrize("says", [b"", b'INFO {"max_payload":1000}\r\n'], ids=["mute", "half"])
async def test_the_connection_is_closed_when_the_sink_no_longer_waits_for_it(says: bytes) -> None:
    async with _mute_server(says) as (url, ended):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await _open(url)
        await asyncio.wait_for(ended.get(), _SECONDS)
