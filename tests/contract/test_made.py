"""What the sinks make on a broker, and what they find there: `contracts.md`, "Conventions kept"."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from structlog.testing import capture_logs

from bridge.errors import SinkFault
from bridge.model import Kind
from tests.brokers.kafka import KafkaBroker
from tests.contract.stand import KafkaStand, NatsStand, kafka_admin, opened
from tests.support.consumers import nats_client

pytestmark = pytest.mark.brokers


async def _config(stand: KafkaStand, kind: str) -> dict[str, str]:
    async with kafka_admin(stand.broker) as admin:
        resource = ConfigResource(ConfigResourceType.TOPIC, f"{stand.prefix}.{kind}")
        answers = await admin.describe_configs([resource])
    return {entry[0]: entry[1] for answer in answers for entry in answer.resources[0][4]}


async def _partitions(stand: KafkaStand) -> dict[str, int]:
    async with kafka_admin(stand.broker) as admin:
        names = [name for name in await admin.list_topics() if name.startswith(f"{stand.prefix}.")]
        told = await admin.describe_topics(names)
    return {
        topic["topic"].removeprefix(f"{stand.prefix}."): len(topic["partitions"]) for topic in told
    }


async def test_every_kind_has_its_topic_with_the_partitions_of_the_contract(
    kafka_stand: KafkaStand,
) -> None:
    async with opened(kafka_stand.sink(partitions=3)):
        pass
    partitions = await _partitions(kafka_stand)
    assert partitions.keys() == {*map(str, Kind), "large"}
    single = {"directory-block-commit", "process-list-event", "gap-alert", "large"}
    assert {name for name, number in partitions.items() if number == 1} == single
    assert {number for name, number in partitions.items() if name not in single} == {3}


@pytest.mark.parametrize("kind", ["entry-reveal", "gap-alert", "dead-letter", "large"])
async def test_a_topic_has_retention_size_and_time_as_the_contract_needs(
    kafka_stand: KafkaStand, kind: str
) -> None:
    async with opened(kafka_stand.sink()) as sink:
        limit = sink.limit(Kind.ENTRY_REVEAL)
    config = await _config(kafka_stand, kind)
    assert config["cleanup.policy"] == ("compact" if kind == "gap-alert" else "delete")
    assert config["retention.ms"] == "-1"
    assert config["max.message.bytes"] == str(limit) == str(16 * 1024 * 1024)
    assert config["message.timestamp.type"] == "LogAppendTime"


async def test_topics_just_made_can_be_used_at_once(kafka: KafkaBroker) -> None:
    for _ in range(10):
        async with opened(KafkaStand(kafka).sink()):
            pass


async def test_chosen_retention_and_size_are_given_to_the_topics(kafka_stand: KafkaStand) -> None:
    async with opened(kafka_stand.sink(retention_ms=86_400_000, max_message_bytes=2_000_000)):
        pass
    config = await _config(kafka_stand, "entry-commit")
    assert (config["retention.ms"], config["max.message.bytes"]) == ("86400000", "2000000")


async def test_topics_that_are_there_are_left_as_they_are_and_their_limits_taken(
    kafka_stand: KafkaStand,
) -> None:
    await kafka_stand.make_topic("entry-reveal", **{"max.message.bytes": "50000"})
    async with opened(kafka_stand.sink()) as sink:
        assert sink.limit(Kind.ENTRY_REVEAL) == 50_000
        assert sink.limit(Kind.ENTRY_COMMIT) == 16 * 1024 * 1024
    assert (await _config(kafka_stand, "entry-reveal"))["max.message.bytes"] == "50000"


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("gap-alert", {"cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime"}),
        ("entry-commit", {"cleanup.policy": "compact", "message.timestamp.type": "LogAppendTime"}),
        ("entry-commit", {"message.timestamp.type": "CreateTime"}),
    ],
    ids=["gap alerts not compacted", "events compacted", "time of the producer"],
)
async def test_a_topic_weaker_than_the_contract_is_told(
    kafka_stand: KafkaStand, kind: str, config: dict[str, str]
) -> None:
    await kafka_stand.make_topic(kind, **config)
    with capture_logs() as lines:
        async with opened(kafka_stand.sink()):
            pass
    told = [line for line in lines if line["log_level"] == "warning"]
    assert [line["topic"] for line in told] == [f"{kafka_stand.prefix}.{kind}"]


async def test_the_stream_is_made_as_the_contract_needs_it(nats_stand: NatsStand) -> None:
    async with opened(nats_stand.sink()) as sink, nats_client(nats_stand.broker.url) as client:
        config = (await client.jetstream().stream_info(nats_stand.prefix)).config
        assert sink.limit(Kind.ENTRY_REVEAL) == client.max_payload
    assert config.subjects == [f"{nats_stand.prefix}.>"]
    assert config.storage == StorageType.FILE
    assert config.discard == DiscardPolicy.NEW
    assert config.retention == RetentionPolicy.LIMITS
    assert (config.duplicate_window or 0) >= 3600
    assert config.allow_atomic
    assert (config.max_age, config.max_bytes, config.num_replicas) == (0, -1, 1)


async def _make_stream(stand: NatsStand, **config: Any) -> None:
    given = {
        "name": stand.prefix,
        "subjects": [f"{stand.prefix}.>"],
        "discard": DiscardPolicy.NEW,
        "duplicate_window": 7200,
    }
    async with nats_client(stand.broker.url) as client:
        await client.jetstream().add_stream(StreamConfig(**{**given, **config}))


@pytest.mark.parametrize(
    "config",
    [{"duplicate_window": 120}, {"discard": DiscardPolicy.OLD}, {"storage": StorageType.MEMORY}],
    ids=["duplicates soon forgotten", "old messages discarded", "kept in memory"],
)
async def test_a_stream_weaker_than_the_contract_is_told(
    nats_stand: NatsStand, config: dict[str, Any]
) -> None:
    await _make_stream(nats_stand, **config)
    with capture_logs() as lines:
        async with opened(nats_stand.sink()):
            pass
    told = [line for line in lines if line["log_level"] == "warning"]
    assert [line["stream"] for line in told] == [nats_stand.prefix]


async def test_a_stream_with_a_smaller_limit_gives_its_limit(nats_stand: NatsStand) -> None:
    await _make_stream(nats_stand, max_msg_size=70_000)
    async with opened(nats_stand.sink()) as sink:
        assert sink.limit(Kind.ENTRY_REVEAL) == 70_000


async def test_a_stream_without_our_subjects_is_a_fault(nats_stand: NatsStand) -> None:
    await _make_stream(nats_stand, subjects=[f"{nats_stand.prefix}.only.this"])
    sink = nats_stand.sink()
    with pytest.raises(SinkFault, match=nats_stand.prefix):
        await sink.open()
    await sink.close()


async def test_subjects_that_another_stream_has_are_a_fault(nats_stand: NatsStand) -> None:
    await _make_stream(nats_stand)
    sink = nats_stand.sink(stream=f"{nats_stand.prefix}-other")
    with pytest.raises(SinkFault, match="subjects overlap"):
        await sink.open()
    await sink.close()
