"""Consumers of what the bridge publishes, who know nothing of it but its contract.

nats-py and aiokafka, used plainly; nothing of `bridge` is imported here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import nats
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

__all__ = [
    "Read",
    "fetch_from_kafka",
    "fetch_from_nats",
    "kinds",
    "nats_client",
    "read_stream",
    "read_topics",
    "without_repeats",
]

_FETCH = 500
_FETCH_SECONDS = 10
_LARGE = 64 * 1024 * 1024


class Read(NamedTuple):
    """One message as a consumer has it."""

    place: str
    """NATS subject or Kafka topic."""
    partition: int
    position: int
    """Sequence number in the stream, or offset in the partition."""
    key: str | None
    headers: dict[str, str]
    data: bytes

    @property
    def attributes(self) -> dict[str, str]:
        """The CloudEvents attributes that stand in the headers."""
        return {
            name[3:]: value
            for name, value in self.headers.items()
            if name.startswith(("ce-", "ce_"))
        }

    @property
    def id(self) -> str:
        """The CloudEvents id."""
        return self.headers.get("ce-id") or self.headers["ce_id"]

    @property
    def kind(self) -> str:
        """The kind, as its CloudEvents type says."""
        type_ = self.headers.get("ce-type") or self.headers["ce_type"]
        return type_.removeprefix("com.factom.livefeed.").removesuffix(".v1")

    @property
    def seq(self) -> int:
        """The journal's number of its event."""
        return int(self.headers["bridge-seq"])


def kinds(messages: Iterable[Read]) -> Counter[str]:
    """Count `messages` by kind."""
    return Counter(message.kind for message in messages)


def without_repeats(messages: Iterable[Read]) -> list[Read]:
    """Return the first message of each id, in order."""
    first: dict[str, Read] = {}
    for message in messages:
        first.setdefault(message.id, message)
    return list(first.values())


@asynccontextmanager
async def nats_client(url: str, **login: Any) -> AsyncIterator[Client]:
    """Yield a connection that fails rather than come back."""
    client = await nats.connect(url, allow_reconnect=False, **login)
    try:
        yield client
    finally:
        await client.close()


async def read_stream(url: str, stream: str = "FACTOM", **login: Any) -> list[Read]:
    """Return everything that the stream holds, in its order."""
    async with nats_client(url, **login) as client:
        jetstream = client.jetstream(timeout=_FETCH_SECONDS)
        held = (await jetstream.stream_info(stream)).state.messages
        if not held:
            return []
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.NONE, mem_storage=True
        )
        subscription = await jetstream.pull_subscribe("", stream=stream, config=config)
        found: list[Read] = []
        pending = held
        while pending:
            for message in await subscription.fetch(min(_FETCH, pending), timeout=_FETCH_SECONDS):
                told = message.metadata
                pending = told.num_pending
                found.append(
                    Read(
                        message.subject,
                        0,
                        told.sequence.stream,
                        None,
                        dict(message.headers or {}),
                        message.data,
                    )
                )
        await subscription.unsubscribe()
        return found


async def read_topics(bootstrap: str, prefix: str, **security: Any) -> dict[str, list[Read]]:
    """Return by topic what every topic of `prefix` held when asked, partition after partition.

    The topic of parts, `{prefix}.large`, is left out: `fetch_from_kafka` reads it.
    """
    places = await _places(bootstrap, prefix, security)
    found: dict[str, list[Read]] = {place.topic: [] for place in places}
    async with _consumer(bootstrap, security) as consumer:
        read = await _read_to_end(consumer, places)
    for place in places:
        found[place.topic] += read[place]
    return found


async def _places(bootstrap: str, prefix: str, security: Mapping[str, Any]) -> list[Any]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, **security)
    await admin.start()
    try:
        topics = sorted(
            topic
            for topic in await admin.list_topics()
            if topic.startswith(f"{prefix}.") and topic != f"{prefix}.large"
        )
        told = await admin.describe_topics(topics) if topics else []
    finally:
        await admin.close()
    return [
        TopicPartition(topic["topic"], number)
        for topic in told
        for number in range(len(topic["partitions"]))
    ]


@asynccontextmanager
async def _consumer(bootstrap: str, security: Mapping[str, Any]) -> AsyncIterator[Any]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        fetch_max_bytes=_LARGE,
        max_partition_fetch_bytes=_LARGE,
        **security,
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def _read_to_end(consumer: Any, places: list[Any]) -> dict[Any, list[Read]]:
    found: dict[Any, list[Read]] = {place: [] for place in places}
    if not places:
        return found
    consumer.assign(places)
    ends: Mapping[Any, int] = await consumer.end_offsets(places)
    await consumer.seek_to_beginning(*places)
    left = set(places)
    while left:
        for place, records in (await consumer.getmany(timeout_ms=100)).items():
            found[place] += [_read(record) for record in records if record.offset < ends[place]]
        for place in list(left):
            if await consumer.position(place) >= ends[place]:
                left.discard(place)
                consumer.pause(place)
    return found


def _read(record: Any) -> Read:
    return Read(
        record.topic,
        record.partition,
        record.offset,
        record.key.decode() if record.key is not None else None,
        {name: value.decode() for name, value in record.headers},
        record.value or b"",
    )


async def fetch_from_nats(url: str, dataref: str, **login: Any) -> bytes:
    """Return the body that a claim check's `dataref` names: an object of an object store."""
    reference = urlsplit(dataref)
    assert reference.scheme == "nats", dataref
    _, bucket, name = reference.path.split("/")
    async with nats_client(url, **login) as client:
        store = await client.jetstream(timeout=_FETCH_SECONDS).object_store(bucket)
        return (await store.get(name)).data or b""


async def fetch_from_kafka(bootstrap: str, dataref: str, **security: Any) -> bytes:
    """Return the body that a claim check's `dataref` names: parts at offsets of a topic."""
    reference = urlsplit(dataref)
    assert reference.scheme == "kafka", dataref
    _, topic, partition = reference.path.split("/")
    place = TopicPartition(topic, int(partition))
    async with _consumer(bootstrap, security) as consumer:
        consumer.assign([place])
        parts = []
        for offset in parse_qs(reference.query)["offsets"][0].split(","):
            consumer.seek(place, int(offset))
            record = await consumer.getone(place)
            assert record.offset == int(offset)
            parts.append(record.value)
    return b"".join(parts)
