"""Reads Kafka's topics back, kind by kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from aiokafka import AIOKafkaConsumer, TopicPartition, errors as kafka
from aiokafka.admin import AIOKafkaAdminClient

from bridge.core.routing import Routes
from bridge.errors import SinkFault, SinkUnavailable
from bridge.model import Kind
from bridge.settings import KafkaSettings
from bridge.sinks.kafka_connection import connection_options
from bridge.verifying.source import Published, Source

__all__ = ["open_topics"]

_BATCH = 250
_POLL_MS = 200


class _Topics:
    """See `Source`. `consumer` goes through topics, `other` is for what they refer to."""

    name = "kafka"

    def __init__(
        self,
        routes: Routes,
        partitions: dict[str, int],
        consumer: AIOKafkaConsumer,
        other: AIOKafkaConsumer,
        seconds: float,
    ) -> None:
        self._routes = routes
        self._partitions = partitions
        self._consumer = consumer
        self._other = other
        self._seconds = seconds

    async def read(self, kind: Kind, since_ns: int = 0) -> AsyncGenerator[Published, None]:
        """See `Source`: partitions side by side."""
        topic, consumer = self._routes.topics[kind], self._consumer
        places = [TopicPartition(topic, number) for number in range(self._partitions[topic])]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        if since_ns:
            await self._seek(places, since_ns, ends)
        else:
            await consumer.seek_to_beginning(*places)
        at = {place: await self._position(place) for place in places}
        while any(at[place] < ends[place] for place in places):
            async with asyncio.timeout(self._seconds):
                while not (
                    found := await consumer.getmany(timeout_ms=_POLL_MS, max_records=_BATCH)
                ):
                    if all([await consumer.position(place) >= ends[place] for place in places]):
                        return
            for place, records in found.items():
                for record in records:
                    at[place] = record.offset + 1
                    if record.offset < ends[place]:
                        left = sum(max(ends[each] - at[each], 0) for each in places)
                        yield _published(record, left)

    async def _seek(
        self, places: list[TopicPartition], since_ns: int, ends: dict[TopicPartition, int]
    ) -> None:
        wanted = dict.fromkeys(places, since_ns // 1_000_000)
        for place, found in (await self._consumer.offsets_for_times(wanted)).items():
            self._consumer.seek(place, ends[place] if found is None else found.offset)

    async def _position(self, place: TopicPartition) -> int:
        async with asyncio.timeout(self._seconds):
            position: int = await self._consumer.position(place)
            return position

    async def fetch(self, reference: str) -> bytes:
        """See `Source`: parts at offsets of a topic."""
        parsed = urlsplit(reference)
        _, topic, partition = parsed.path.split("/")
        place = TopicPartition(topic, int(partition))
        self._other.assign([place])
        parts = []
        for offset in map(int, parse_qs(parsed.query)["offsets"][0].split(",")):
            self._other.seek(place, offset)
            try:
                async with asyncio.timeout(self._seconds):
                    record = await self._other.getone(place)
            except kafka.OffsetOutOfRangeError as error:
                raise LookupError(reference) from error
            if record.offset != offset:
                raise LookupError(reference)
            parts.append(record.value)
        return b"".join(parts)


def _published(record: Any, left: int) -> Published:
    attributes = {
        "datacontenttype" if name == "content-type" else name[3:]: value.decode(errors="replace")
        for name, value in record.headers
        if name == "content-type" or name.startswith("ce_")
    }
    place = f"{record.topic} at {record.partition}/{record.offset}"
    where = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
    return Published(place, left, attributes, record.value or b"", where)


@asynccontextmanager
async def open_topics(settings: KafkaSettings, routes: Routes) -> AsyncIterator[Source]:
    """Yield the topics that the settings name; nothing is made where one is missing.

    Raises:
        SinkUnavailable: the brokers do not answer, also later on.
        SinkFault: a topic is missing, or they refuse.
    """
    # The login is the sink's: there is one place that knows how to.
    connection = connection_options(settings)
    try:
        async with asyncio.timeout(settings.timeout_seconds):
            partitions = await _partitions(connection, routes)
        async with (
            _consumer(connection, settings) as consumer,
            _consumer(connection, settings) as other,
        ):
            yield _Topics(routes, partitions, consumer, other, settings.timeout_seconds)
    except (kafka.KafkaError, OSError, TimeoutError) as error:
        text = str(error) or type(error).__name__
        raise SinkUnavailable(f"Kafka is not available: {text}") from error


@asynccontextmanager
async def _consumer(
    connection: dict[str, Any], settings: KafkaSettings
) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        **connection,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        max_partition_fetch_bytes=settings.max_message_bytes,
    )
    try:
        async with asyncio.timeout(settings.timeout_seconds):
            await consumer.start()
        yield consumer
    finally:
        await consumer.stop()


async def _partitions(connection: dict[str, Any], routes: Routes) -> dict[str, int]:
    topics = [topic for kind, topic in routes.topics.items() if kind not in routes.off]
    admin = AIOKafkaAdminClient(**connection)
    try:
        await admin.start()
        told = await admin.describe_topics(topics)
    finally:
        await admin.close()
    for topic in told:
        error = kafka.for_code(topic["error_code"])
        if error is not kafka.NoError:
            raise SinkFault(f"the topic {topic['topic']} cannot be read: {error.__name__}")
    return {topic["topic"]: len(topic["partitions"]) for topic in told}
