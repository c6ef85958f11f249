"""Creates Kafka's topics as the contract needs them, or verifies those that are there."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import Any, NamedTuple

from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.partitioner import murmur2

from bridge import log
from bridge.core.routing import SINGLE_PARTITION, Routes
from bridge.model import Kind
from bridge.settings import KafkaSettings

__all__ = ["Topic", "Topics", "partition_of"]

_log = log.get("kafka")
_COMPACTED = frozenset({Kind.GAP_ALERT})
_LOOK_AGAIN_SECONDS = 0.1
_NOT_YET = (kafka.UnknownTopicOrPartitionError, kafka.LeaderNotAvailableError)


class Topic(NamedTuple):
    """What the broker told of a topic."""

    partitions: int
    limit: int
    """`max.message.bytes`: of a whole batch."""


class Topics:
    """The topics of one bridge."""

    def __init__(self, settings: KafkaSettings, routes: Routes) -> None:
        self._settings = settings
        self._routes = routes
        self.large = f"{routes.prefix}.large"
        """Topic of the data of messages that are too large for theirs."""

    async def ensure(self, connection: dict[str, Any]) -> dict[str, Topic]:
        """Create what is missing, verify what is there, and return each topic by its name.

        Raises:
            KafkaError: as aiokafka does; the sink says it in the bridge's terms.
        """
        admin = AIOKafkaAdminClient(**connection)
        try:
            await admin.start()
            wanted = {
                topic: kind
                for kind, topic in self._routes.topics.items()
                if kind not in self._routes.off
            }
            present = set(await admin.list_topics())
            missing = [topic for topic in (*wanted, self.large) if topic not in present]
            if missing:
                await self._create(admin, missing, wanted)
            return await self._describe(admin, [*wanted, self.large])
        finally:
            await admin.close()

    async def _create(
        self, admin: AIOKafkaAdminClient, missing: list[str], wanted: dict[str, Kind]
    ) -> None:
        settings = self._settings
        topics = []
        for topic in missing:
            kind = wanted.get(topic)
            compacted = kind in _COMPACTED
            single = kind is None or kind in SINGLE_PARTITION or compacted
            copies = settings.replication_factor
            topics.append(
                NewTopic(
                    topic,
                    1 if single else settings.partitions,
                    copies,
                    # aiokafka takes "the broker's default" (-1) only beside an assignment.
                    {} if copies == -1 else None,
                    {
                        "cleanup.policy": "compact" if compacted else "delete",
                        "retention.ms": str(settings.retention_ms),
                        "max.message.bytes": str(settings.max_message_bytes),
                        "message.timestamp.type": "LogAppendTime",
                    },
                )
            )
        answer = await admin.create_topics(topics)
        for topic, code, text in _topic_errors(answer):
            error = kafka.for_code(code)
            if error not in {kafka.NoError, kafka.TopicAlreadyExistsError}:
                raise error(f"topic {topic}: {text or error.__name__}")
        _log.info("topics made", topics=missing)

    async def _describe(self, admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, Topic]:
        partitions = await self._partitions(admin, names)
        found = {}
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        for response in await admin.describe_configs(resources):
            for code, text, _, name, entries, *_ in response.resources:
                if code:
                    raise kafka.for_code(code)(f"topic {name}: {text}")
                config = {entry[0]: entry[1] for entry in entries}
                found[name] = Topic(partitions[name], int(config["max.message.bytes"]))
                self._verify(name, config)
        return found

    async def _partitions(self, admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, int]:
        """Wait until each topic has its partitions: one just made is not known everywhere at once.

        The caller bounds the time.
        """
        while True:
            told = await admin.describe_topics(names)
            errors = {topic["topic"]: kafka.for_code(topic["error_code"]) for topic in told}
            if all(error is kafka.NoError for error in errors.values()):
                return {topic["topic"]: len(topic["partitions"]) for topic in told}
            for name, error in errors.items():
                if error is not kafka.NoError and not issubclass(error, _NOT_YET):
                    raise error(f"topic {name}")
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)

    def _verify(self, name: str, config: dict[str, str]) -> None:
        compacted = name == self._routes.topics[Kind.GAP_ALERT]
        remedies = []
        if ("compact" in config["cleanup.policy"]) != compacted:
            remedies.append(f"cleanup.policy={'compact' if compacted else 'delete'}")
        if config["message.timestamp.type"] != "LogAppendTime":
            remedies.append("message.timestamp.type=LogAppendTime")
        if remedies:
            _log.warning(
                "topic is weaker than the contract",
                topic=name,
                remedy=f"Set {', '.join(remedies)}.",
            )


def _topic_errors(answer: Any) -> list[tuple[str, int, str | None]]:
    return [
        (entry[0], entry[1], entry[2] if len(entry) > 2 else None) for entry in answer.topic_errors
    ]


@lru_cache(maxsize=65_536)
def partition_of(key: str, count: int) -> int:
    """Where Kafka's own clients put `key`."""
    place: int = (murmur2(key.encode()) & 0x7FFFFFFF) % count
    return place
