"""The brokers of this folder, and each sink on a stand."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tests.brokers.kafka import KafkaBroker
from tests.brokers.nats import NatsBroker
from tests.contract.stand import KafkaStand, NatsStand, Stand


@pytest.fixture(scope="package")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    with KafkaBroker(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture(scope="package")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsBroker]:
    with NatsBroker(tmp_path_factory.mktemp("nats")) as broker:
        yield broker


@pytest.fixture(autouse=True)
def _nothing_left_for_other_tests() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture(params=["nats", "nats-without-atomic-batches", "kafka"])
async def stand(request: pytest.FixtureRequest) -> Stand:
    """Every sink, one after the other."""
    if request.param == "kafka":
        return KafkaStand(request.getfixturevalue("kafka"))
    nats = NatsStand(request.getfixturevalue("nats_server"), atomic=request.param == "nats")
    await nats.prepare()
    return nats


@pytest.fixture
def kafka_stand(kafka: KafkaBroker) -> KafkaStand:
    return KafkaStand(kafka)


@pytest.fixture
def nats_stand(nats_server: NatsBroker) -> NatsStand:
    return NatsStand(nats_server, atomic=True)
