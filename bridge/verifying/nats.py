"""Reads the JetStream stream back, kind by kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from urllib.parse import unquote, urlsplit

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from bridge.core.routing import Routes
from bridge.errors import SinkFault
from bridge.model import Kind
from bridge.settings import NatsSettings

# The login is the sink's: there is one place that knows how to.
from bridge.sinks.nats_connection import in_our_terms, open_client
from bridge.verifying.source import Published, Source

__all__ = ["open_stream"]

_BATCH = 250
_BLOCKS = 8
"""Blocks are asked for by the few: each may be as large as the server allows."""


class _Stream:
    """See `Source`."""

    name = "nats"

    def __init__(self, client: Client, settings: NatsSettings, routes: Routes) -> None:
        self._jetstream = client.jetstream(timeout=settings.timeout_seconds)
        self._stream = settings.stream
        self._seconds = settings.timeout_seconds
        self._routes = routes

    async def read(self, kind: Kind, since_ns: int = 0) -> AsyncGenerator[Published, None]:
        """See `Source`."""
        last = (await self._jetstream.stream_info(self._stream)).state.last_seq
        topic = self._routes.topics[kind]
        since = datetime.fromtimestamp(since_ns / 1e9, UTC) if since_ns else None
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_TIME if since else DeliverPolicy.ALL,
            opt_start_time=since,
            ack_policy=AckPolicy.NONE,
            mem_storage=True,
            filter_subjects=[topic, f"{topic}.>"],
        )
        subscription = await self._jetstream.pull_subscribe("", stream=self._stream, config=config)
        try:
            most = _BLOCKS if kind is Kind.DIRECTORY_BLOCK_COMMIT else _BATCH
            left = (await subscription.consumer_info()).num_pending
            while left:
                for message in await subscription.fetch(min(most, left), self._seconds):
                    told = message.metadata
                    left = told.num_pending
                    if told.sequence.stream > last:
                        return
                    attributes = {
                        name[3:]: unquote(value)
                        for name, value in (message.headers or {}).items()
                        if name.startswith("ce-")
                    }
                    number = told.sequence.stream
                    place = f"{message.subject} at {number}"
                    where = {
                        "stream": self._stream,
                        "subject": message.subject,
                        "sequence": number,
                    }
                    yield Published(place, left, attributes, message.data, where)
        finally:
            await subscription.unsubscribe()

    async def fetch(self, reference: str) -> bytes:
        """See `Source`: an object of an object store."""
        _, bucket, name = urlsplit(reference).path.split("/")
        try:
            async with asyncio.timeout(self._seconds):
                store = await self._jetstream.object_store(bucket)
                return (await store.get(name)).data or b""
        except (
            nats.js.errors.NotFoundError,
            nats.js.errors.DigestMismatchError,
            nats.js.errors.BadObjectMetaError,
        ) as error:
            raise LookupError(reference) from error


@asynccontextmanager
async def open_stream(settings: NatsSettings, routes: Routes) -> AsyncIterator[Source]:
    """Yield the stream that the settings name; nothing is made where it is missing.

    Raises:
        SinkUnavailable: the server does not answer, also later on.
        SinkFault: it has no such stream, or refuses.
    """
    told: list[Exception] = []

    async def failed(error: Exception) -> None:
        told.append(error)

    async def closed() -> None:
        """Needs no saying: what is under way fails."""

    try:
        client = await open_client(settings, closed, failed)
        try:
            yield _Stream(client, settings, routes)
        finally:
            await client.close()
    except nats.js.errors.NotFoundError as error:
        raise SinkFault(f"the NATS server has no stream {settings.stream}: {error}") from error
    except (nats.errors.Error, OSError, TimeoutError) as error:
        # The library keeps the cause of a failed connection to itself.
        with in_our_terms():
            raise told[-1] if told else error from None
