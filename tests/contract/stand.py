"""A sink beside its broker, with all that a test needs to look at both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from nats.js.api import DiscardPolicy, StreamConfig

from bridge.core.render import Renderer
from bridge.core.routing import ChainFilter, Routes
from bridge.model import Group, Message, Run
from bridge.ports import Sink
from bridge.settings import KafkaSettings, NatsSettings
from bridge.sinks.kafka import KafkaSink
from bridge.sinks.nats import NatsSink
from tests.brokers.kafka import KafkaBroker
from tests.brokers.nats import NatsBroker
from tests.brokers.process import Broker
from tests.support.consumers import (
    Read,
    fetch_from_kafka,
    fetch_from_nats,
    nats_client,
    read_stream,
    read_topics,
)
from tests.support.kafka_config import set_config

__all__ = ["EPOCH", "KafkaStand", "NatsStand", "Stand", "kafka_admin", "opened", "rendered"]

EPOCH = "0123456789abcdef"
_RECEIVED_NS = 1_763_900_000_123_456_000
_names = (f"contract-{number}" for number in count(1))


def rendered(frames: list[bytes], first: int = 1) -> list[Message]:
    """Return what the bridge makes of `frames`, in JSON."""
    renderer = Renderer(
        network="main", epoch=EPOCH, routes=Routes("any", {}, ()), chains=ChainFilter()
    )
    run = Run("tcp/1", _RECEIVED_NS, len(frames), b"".join(frames))
    return list(renderer.render(Group(first, first + len(frames) - 1, (run,))).messages)


@asynccontextmanager
async def opened(sink: Sink) -> AsyncIterator[Sink]:
    """Open `sink` for the body."""
    try:
        await sink.open()
        yield sink
    finally:
        await sink.close()


class Stand(ABC):
    """The same questions to each sink. All names on the broker are this stand's own."""

    keeps_repeats: bool
    """Whether an id that is sent twice is there twice."""

    broker: Broker

    def __init__(self) -> None:
        self.prefix = next(_names)
        self.routes = Routes(self.prefix, {}, ())

    @abstractmethod
    def sink(self, **settings: Any) -> Sink:
        """Return a sink, not yet open; `settings` go over those of the stand."""

    @abstractmethod
    async def read(self) -> list[Read]:
        """Return all that is there: in order of sending, within each topic for Kafka."""

    @abstractmethod
    async def fetch(self, dataref: str) -> bytes:
        """Return what was set aside."""

    @abstractmethod
    async def limit_messages(self, limit: int) -> None:
        """Have the broker refuse entry reveals of more than `limit` bytes from now on."""

    def places(self, messages: list[Message]) -> Iterator[tuple[str, list[Message]]]:
        """Yield each topic or stream, by the beginning of its name, and what is to be in it."""
        yield self.prefix, messages


class NatsStand(Stand):
    """JetStream; made by `prepare` beforehand, or by the sink."""

    keeps_repeats = False

    def __init__(self, broker: NatsBroker, *, atomic: bool) -> None:
        super().__init__()
        self.broker: NatsBroker = broker
        self._atomic = atomic

    async def prepare(self) -> None:
        """Make the stream as an older server would have it, where that is asked for."""
        if self._atomic:
            return
        async with nats_client(self.broker.url) as client:
            await client.jetstream().add_stream(
                StreamConfig(
                    name=self.prefix,
                    subjects=[f"{self.prefix}.>"],
                    discard=DiscardPolicy.NEW,
                    duplicate_window=7200,
                )
            )

    def sink(self, **settings: Any) -> Sink:
        given = {"servers": self.broker.url, "stream": self.prefix, "timeout_seconds": 5}
        return NatsSink(NatsSettings(**{**given, **settings}), self.routes, EPOCH)

    async def read(self) -> list[Read]:
        return await read_stream(self.broker.url, self.prefix)

    async def fetch(self, dataref: str) -> bytes:
        return await fetch_from_nats(self.broker.url, dataref)

    async def limit_messages(self, limit: int) -> None:
        async with nats_client(self.broker.url) as client:
            config = (await client.jetstream().stream_info(self.prefix)).config
            config.max_msg_size = limit
            await client.jetstream().update_stream(config)


class KafkaStand(Stand):
    """Kafka."""

    keeps_repeats = True

    def __init__(self, broker: KafkaBroker) -> None:
        super().__init__()
        self.broker: KafkaBroker = broker

    def sink(self, **settings: Any) -> Sink:
        given = {"bootstrap_servers": self.broker.bootstrap, "timeout_seconds": 5}
        return KafkaSink(KafkaSettings(**{**given, **settings}), self.routes, EPOCH)

    async def read(self) -> list[Read]:
        topics = await read_topics(self.broker.bootstrap, self.prefix)
        return [message for held in topics.values() for message in held]

    async def fetch(self, dataref: str) -> bytes:
        return await fetch_from_kafka(self.broker.bootstrap, dataref)

    async def limit_messages(self, limit: int) -> None:
        topic = f"{self.prefix}.entry-reveal"
        await set_config(self.broker.bootstrap, topic, "max.message.bytes", str(limit))

    def places(self, messages: list[Message]) -> Iterator[tuple[str, list[Message]]]:
        for kind in dict.fromkeys(message.kind for message in messages):
            name = f"{self.prefix}.{kind}"
            yield name, [message for message in messages if message.kind is kind]

    async def make_topic(self, kind: str, **config: str) -> None:
        """Make a topic before the bridge does."""
        async with kafka_admin(self.broker) as admin:
            name = f"{self.prefix}.{kind}"
            answer = await admin.create_topics([NewTopic(name, 1, 1, topic_configs=config)])
        assert [error[1] for error in answer.topic_errors] == [0]


@asynccontextmanager
async def kafka_admin(broker: KafkaBroker) -> AsyncIterator[Any]:
    """Yield an administrator's client."""
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()
