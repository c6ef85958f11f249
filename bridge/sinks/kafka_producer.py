"""Sends written batches to the leaders of their partitions: each once, and in order.

All that a call brings goes in one request to each broker, as it is: the client's own producer takes
its batches through five layers, with a copy in each. It uses Kafka's idempotence (KIP-98): the
broker numbers the producer, this numbers the records of each partition, and what is sent again after
an error that passes is stored once.

It stands on aiokafka's public client, for brokers, logins and versions; what the request itself takes
of it is private, and held by `tests/contract/test_kafka_private.py`.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable, Sequence
from typing import Any, Self, TypeAlias

from aiokafka import AIOKafkaClient, TopicPartition, errors as kafka
from aiokafka.protocol.produce import ProduceRequest_v7
from aiokafka.protocol.transaction import InitProducerIdRequest

from bridge.sinks.kafka_batch import WrittenBatch
from bridge.sinks.kafka_tails import Place

__all__ = ["Outcome", "Producer"]

_BACKOFF_SECONDS = 0.2
_NUMBERS = 2**31
"""Records of a partition are numbered modulo this."""

_HEAD = struct.Struct(">hhi")
"""Key and version of the request, its correlation id."""
_FRONT = struct.Struct(">hhi")
"""No transaction's id, acknowledgements of all replicas, timeout in milliseconds."""
_PARTITION = struct.Struct(">ii")
"""Number of the partition, bytes of its batch."""

Outcome: TypeAlias = int | Exception
"""The offset of a batch, -1 where the broker does not know it any more; or why it is not stored."""


class Producer:
    """Sends for one sink. When it returned an error, or raised one, it is to be closed."""

    def __init__(self, options: dict[str, Any]) -> None:
        """`options` are the client's."""
        self._client = AIOKafkaClient(**options)
        self._timeout_ms: int = options["request_timeout_ms"]
        self._identity = -1, -1
        self._next: dict[Place, int] = {}
        """By partition, the number of the next record."""

    async def start(self, topics: Iterable[str]) -> None:
        """Find the brokers and the leaders of `topics`. The caller bounds the time.

        Raises:
            KafkaError: as the client does.
        """
        await self._client.bootstrap()
        await self._client.set_topics(topics)
        while True:
            node = self._client.get_random_node()
            try:
                # No transactions: so their timeout is none either.
                answer = await self._client.send(node, InitProducerIdRequest(None, 0))
                if answer.error_code:
                    raise kafka.for_code(answer.error_code)
            except kafka.KafkaError as error:
                if not error.retriable:
                    raise
                await self._look_again()
            else:
                self._identity = answer.producer_id, answer.producer_epoch
                return

    async def ask(self) -> None:
        """Ask the brokers whether they are there. Raises: as `start`."""
        await self._client.fetch_all_metadata()

    async def send(self, batches: Sequence[tuple[Place, WrittenBatch]]) -> list[Outcome]:
        """Send `batches`, in the order of each partition, and return what became of each.

        What fails in passing is sent again until it is stored: the caller bounds the time. A batch
        that is refused takes those behind it in its partition with it.
        """
        parts = [self._numbered(place, batch) for place, batch in batches]
        outcomes: dict[int, Outcome] = {}
        left = list(range(len(batches)))
        while left:
            # One batch of each partition: a request has no more, and none overtakes another.
            first: dict[Place, int] = {}
            for number in left:
                first.setdefault(batches[number][0], number)
            found = await self._round({place: parts[number] for place, number in first.items()})
            for number in left:
                place = batches[number][0]
                outcome = found[place]
                if isinstance(outcome, Exception) or (
                    outcome is not None and number == first[place]
                ):
                    outcomes[number] = outcome
            left = [number for number in left if number not in outcomes]
            if None in found.values():
                await self._look_again()
        return [outcomes[number] for number in range(len(batches))]

    def _numbered(self, place: Place, batch: WrittenBatch) -> tuple[bytes, bytes]:
        at = self._next.get(place, 0)
        self._next[place] = (at + batch.count) % _NUMBERS
        return batch.parts(*self._identity, at)

    async def _look_again(self) -> None:
        await asyncio.sleep(_BACKOFF_SECONDS)
        await self._client.force_metadata_update()

    async def _round(self, parts: dict[Place, tuple[bytes, bytes]]) -> dict[Place, Outcome | None]:
        """Send a batch to each partition; None for one that is to be tried again."""
        nodes: dict[int, list[Place]] = {}
        found: dict[Place, Outcome | None] = dict.fromkeys(parts)
        for place in parts:
            node = self._client.cluster.leader_for_partition(TopicPartition(*place))
            if node is not None and node >= 0:
                nodes.setdefault(node, []).append(place)
        requests = [
            self._request(
                node, _Produce({place: parts[place] for place in places}, self._timeout_ms)
            )
            for node, places in nodes.items()
        ]
        for answers in await asyncio.gather(*requests):
            found |= answers
        return found

    async def _request(self, node: int, request: _Produce) -> dict[Place, Outcome]:
        """Return what became of each batch of `request`, but for those to be tried again."""
        try:
            answer = await self._client.send(node, request)
        except kafka.KafkaError as error:
            if error.retriable:
                return {}
            raise
        found: dict[Place, Outcome] = {}
        for topic, partitions in answer.topics:
            for partition, code, offset, *_ in partitions:
                kind = kafka.for_code(code)
                if kind in {kafka.NoError, kafka.DuplicateSequenceNumber}:
                    found[topic, partition] = offset
                elif not kind.retriable:
                    found[topic, partition] = kind(f"topic {topic}: {kind.description}")
        return found

    async def close(self) -> None:
        """Let go of the brokers."""
        await self._client.close()


class _Produce(ProduceRequest_v7):  # type: ignore[misc]
    """A request with a batch for each partition, put together in one go."""

    def __init__(self, parts: dict[Place, tuple[bytes, bytes]], timeout_ms: int) -> None:
        topics: dict[str, list[bytes]] = {}
        for (topic, partition), (header, records) in parts.items():
            size = len(header) + len(records)
            held = topics.setdefault(topic, [])
            held += _PARTITION.pack(partition, size), header, records
        self._parts = [_FRONT.pack(-1, -1, timeout_ms), struct.pack(">i", len(topics))]
        for topic, held in topics.items():
            self._parts += _string(topic), struct.pack(">i", len(held) // 3), *held

    def prepare(self, versions: dict[int, tuple[int, int]]) -> Self:
        """See aiokafka's `Request`."""
        lowest, highest = versions[self.API_KEY]
        if not lowest <= self.API_VERSION <= highest:
            raise kafka.UnsupportedVersionError(
                f"the broker takes produce requests of version {lowest} to {highest}, and not"
                f" {self.API_VERSION}, which Kafka has since 2.1"
            )
        return self

    def build_request_header(self, correlation_id: int, client_id: str) -> Any:
        """See aiokafka's `RequestStruct`. The header is put in front here, lest it costs a copy."""
        head = _HEAD.pack(self.API_KEY, self.API_VERSION, correlation_id)
        self._parts.insert(0, head + _string(client_id))
        return _Nothing

    def encode(self) -> bytes:
        """Return header and body."""
        return b"".join(self._parts)

    def __repr__(self) -> str:
        return f"<request of {sum(map(len, self._parts))} bytes>"


class _Nothing:
    """The header that stands in front of a body that has it already."""

    @staticmethod
    def encode() -> bytes:
        return b""


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">h", len(data)) + data
