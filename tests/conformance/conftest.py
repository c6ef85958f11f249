"""Both brokers, once for all recordings: each recording has a prefix and a stream of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.brokers.kafka import KafkaBroker
from tests.brokers.nats import NatsBroker


@pytest.fixture(scope="package")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    with KafkaBroker(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture(scope="package")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsBroker]:
    with NatsBroker(tmp_path_factory.mktemp("nats")) as broker:
        yield broker
