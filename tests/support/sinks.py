"""Two brokers, and names on them that one test has for itself."""

from __future__ import annotations

from dataclasses import dataclass

from tests.brokers.kafka import KafkaBroker
from tests.brokers.nats import NatsBroker
from tests.support.consumers import Read, read_stream, read_topics

__all__ = ["Sinks"]


@dataclass(frozen=True)
class Sinks:
    """Where one bridge publishes: everything it makes on the brokers begins with `name`."""

    kafka: KafkaBroker
    nats: NatsBroker
    name: str

    @property
    def environ(self) -> dict[str, str]:
        """The settings that lead a bridge here."""
        return {
            "BRIDGE_PREFIX": self.name,
            "BRIDGE_NATS__STREAM": self.name,
            "BRIDGE_NATS__SERVERS": self.nats.url,
            "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": self.kafka.bootstrap,
        }

    async def streamed(self) -> list[Read]:
        """Return what the JetStream stream holds."""
        return await read_stream(self.nats.url, self.name)

    async def in_topics(self) -> dict[str, list[Read]]:
        """Return what the Kafka topics hold, by kind."""
        topics = await read_topics(self.kafka.bootstrap, self.name)
        return {topic.removeprefix(f"{self.name}."): held for topic, held in topics.items()}
