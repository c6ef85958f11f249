"""Kafka, through aiokafka.

Batches are written here, per partition (`kafka_batch`), and sent by `kafka_producer`: the client's own
way, a future per record, costs ten times as much. One refused record spoils an idempotent producer for
good, for its numbers have a gap, and a send that failed may yet be in the log: so after any error the
producer is thrown away, and the lane sends again, in order, from the first message not acknowledged.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import NoReturn

import orjson
from aiokafka import errors as kafka
from aiokafka.conn import create_conn

from bridge import log
from bridge.core.kafkawire import KafkaWire, record
from bridge.core.kinds import by_kind
from bridge.core.routing import Routes
from bridge.errors import MessageRefused, SinkUnavailable
from bridge.model import Kind, Message, Standing, Tail
from bridge.settings import KafkaSettings
from bridge.sinks.kafka_batch import HEADER_BYTES, WrittenBatch
from bridge.sinks.kafka_connection import connection_options
from bridge.sinks.kafka_errors import FAULTS, REFUSALS, in_our_terms
from bridge.sinks.kafka_producer import Producer
from bridge.sinks.kafka_tails import Place, read_ends
from bridge.sinks.kafka_topics import Topic, Topics, partition_of

__all__ = ["KafkaSink"]

_log = log.get("kafka")
_CLOSE_SECONDS = 2
_ASK_SECONDS = 5
"""How often an idle broker is asked whether it is there, and how long it may take."""

_AUDIT_SECONDS = 60
"""How often it is asked, while idle, whether it still holds what it acknowledged."""

_CHUNK_HEADROOM = 4_096
_BUILT_BYTES = 1024 * 1024
"""Of batches built at a stretch, so that nobody waits for longer than a few ms."""

_Written = tuple[Place, WrittenBatch, list[Message]]
"""Where a batch goes, and what it holds."""


class KafkaSink:
    """See `ports.Sink`. `epoch` is the journal's."""

    name = "kafka"

    def __init__(self, settings: KafkaSettings, routes: Routes, epoch: str) -> None:
        self._settings = settings
        self._routes = routes
        self._epoch = epoch.encode()
        self._producer: Producer | None = None
        self._topics: dict[str, Topic] = {}
        self._wire = KafkaWire(self._epoch)
        self._batch_bytes = settings.batch_bytes
        self._admin = Topics(settings, routes)
        self._acknowledged: dict[Place, int] = {}
        self._replaced: dict[Place, int] = {}
        """Offset of the first message that stands where one was that was lost since."""
        self._audited = time.monotonic()
        self._prepared: tuple[Sequence[Message], list[_Written]] | None = None
        self._there: dict[Place, int] = {}
        """Number of the last message of a partition, where that one need not be sent again."""

    def limit(self, kind: Kind) -> int:
        """See `ports.Sink`: the topic's own limit."""
        return self._topics[self._routes.topics[kind]].limit

    async def open(self) -> None:
        """See `ports.Sink`."""
        self._prepared = None
        with in_our_terms():
            try:
                self._topics = await asyncio.wait_for(
                    self._admin.ensure(connection_options(self._settings)),
                    self._settings.timeout_seconds,
                )
            except kafka.KafkaConnectionError:
                await self._raise_why()
                raise
            await self._start_producer()

    async def _raise_why(self) -> None:
        """Raise the error of a login that the brokers refuse: the client only logs it."""
        chosen = connection_options(self._settings)
        del chosen["retry_backoff_ms"]
        for server in chosen.pop("bootstrap_servers"):
            host, _, port = server.rpartition(":")
            try:
                async with asyncio.timeout(self._settings.timeout_seconds):
                    connection = await create_conn(host.strip("[]"), int(port), **chosen)
                connection.close()
            except FAULTS:
                raise
            except (kafka.KafkaError, OSError, TimeoutError):
                continue

    async def _start_producer(self) -> None:
        settings = self._settings
        smallest = min(topic.limit for topic in self._topics.values())
        self._batch_bytes = min(settings.batch_bytes, smallest)
        self._producer = Producer(connection_options(self._settings))
        await asyncio.wait_for(self._producer.start(self._topics), settings.timeout_seconds)

    @property
    def mark(self) -> bytes | None:
        """See `ports.Sink`: the offset of the last message that was acknowledged, by partition."""
        marks = {
            f"{topic}/{partition}": at for (topic, partition), at in self._acknowledged.items()
        }
        return orjson.dumps(marks) if marks else None

    async def standing(
        self, mark: bytes | None, ours: Callable[[Tail], Awaitable[bool]]
    ) -> Standing:
        """See `ports.Sink`.

        Partitions are filled side by side, and each in order. So the last message of one says what
        need not be sent to it again, and what comes up to there is left out of what is published;
        one that ends before what it acknowledged has lost it, and only what is in front of the first
        message that took a lost one's place is known to be whole.
        """
        places = [
            (topic, partition)
            for topic in self._routes.topics.values()
            if topic in self._topics
            for partition in range(self._topics[topic].partitions)
        ]
        with in_our_terms():
            async with asyncio.timeout(self._settings.timeout_seconds):
                ends = await read_ends(
                    connection_options(self._settings), places, self._epoch, self._replaced
                )
        self._replaced = {}
        tails = {p: end.tail for p, end in ends.items() if end.tail and await ours(end.tail)}
        self._there = {place: tail.seq for place, tail in tails.items()}
        told = {_named(name): at for name, at in orjson.loads(mark or b"{}").items()}
        self._acknowledged = {p: min(at, ends[p].offset - 1) for p, at in told.items() if p in ends}
        lost = [place for place, at in told.items() if place in ends and ends[place].offset <= at]
        # Of one that holds nothing of the journal, all is sent again.
        tail = min((tails[p] for p in lost), default=None) if tails.keys() >= set(lost) else None
        return Standing(tail, bool(lost))

    async def watch(self) -> NoReturn:
        """See `ports.Sink`: asks the brokers now and then whether they are there, and all there."""
        while True:
            await asyncio.sleep(_ASK_SECONDS)
            if self._producer is None:
                raise SinkUnavailable("the Kafka producer is closed")
            try:
                async with asyncio.timeout(_ASK_SECONDS):
                    await self._producer.ask()
                    if time.monotonic() - self._audited >= _AUDIT_SECONDS:
                        await self._audit()
            except (kafka.KafkaError, OSError, TimeoutError) as error:
                raise SinkUnavailable(f"no broker answers: {error}") from error

    async def _audit(self) -> None:
        places = list(self._acknowledged)
        ends = await read_ends(connection_options(self._settings), places, self._epoch)
        for place, at in self._acknowledged.items():
            if ends[place].offset <= at:
                raise SinkUnavailable(f"{place[0]} has lost what it had acknowledged")
        self._audited = time.monotonic()

    async def prepare(self, messages: Sequence[Message]) -> None:
        """See `ports.Sink`: the batches, unless some of the messages may be there already."""
        if not self._there:
            self._prepared = messages, await self._written(messages)

    async def publish(self, messages: Sequence[Message]) -> int:
        """See `ports.Sink`: it had those that `standing` found to be there."""
        prepared, self._prepared = self._prepared, None
        if prepared is not None and prepared[0] is messages:
            count = len(messages)
            failed = await self._send(prepared[1])
        else:
            fresh = messages
            if self._there:
                fresh = [message for message in messages if not self._has(message)]
            count = len(fresh)
            failed = await self._send(await self._written(fresh))
        if failed:
            # Perhaps a limit was lowered, and they fit into smaller batches.
            failed = await self._send_anew(failed)
        for message in sorted(failed, key=_number):
            # One of them is refused, and the broker does not say which: a batch for each.
            if await self._send_anew([message]):
                position = next(n for n, each in enumerate(messages) if each is message)
                raise MessageRefused(position, self._refusal)
        return len(messages) - count

    async def _send_anew(self, messages: list[Message]) -> list[Message]:
        await self.close()
        await self.open()
        return await self._send(await self._written(sorted(messages, key=_number)))

    def _has(self, message: Message) -> bool:
        place = self._place(message)
        if message.seq <= self._there.get(place, 0):
            return True
        self._there.pop(place, None)
        return False

    async def _send(self, batches: list[_Written]) -> list[Message]:
        """Send `batches`; where one was refused, return all that was not acknowledged."""
        producer = self._producer
        if producer is None:
            raise SinkUnavailable("the Kafka producer is closed")
        with in_our_terms():
            async with asyncio.timeout(self._settings.timeout_seconds):
                outcomes = await producer.send([(place, batch) for place, batch, _ in batches])
            for (place, _, held), outcome in zip(batches, outcomes, strict=True):
                if isinstance(outcome, int) and outcome >= 0:
                    self._note(place, outcome, len(held))
            errors = [outcome for outcome in outcomes if not isinstance(outcome, int)]
            refusals = [error for error in errors if isinstance(error, REFUSALS)]
            if errors and not refusals:
                raise errors[0]
        if not refusals:
            return []
        self._refusal = str(refusals[0]) or type(refusals[0]).__name__
        # A refused batch takes those behind it in its partition down with it; what failed
        # otherwise at the same time is sent again too.
        return [
            message
            for (_, _, held), outcome in zip(batches, outcomes, strict=True)
            if not isinstance(outcome, int)
            for message in held
        ]

    def _note(self, place: Place, offset: int, count: int) -> None:
        """Note what was acknowledged: one writer's offsets only grow, unless the log was set back."""
        if offset <= self._acknowledged.get(place, -1):
            self._replaced[place] = min(offset, self._replaced.get(place, offset))
            raise SinkUnavailable(f"{place[0]} has lost what it had acknowledged")
        self._acknowledged[place] = offset + count - 1

    def _place(self, message: Message) -> Place:
        topic = self._routes.topics[message.layout.kind]
        count = self._topics[topic].partitions
        return topic, 0 if count == 1 or message.key is None else partition_of(message.key, count)

    def _by_partition(self, messages: Sequence[Message]) -> dict[Place, list[Message]]:
        parts: dict[Place, list[Message]] = {}
        for kind, of_it in by_kind(messages).messages.items():
            topic = self._routes.topics[kind]
            if self._topics[topic].partitions == 1:
                parts[topic, 0] = of_it
            else:
                for message in of_it:
                    parts.setdefault(self._place(message), []).append(message)
        return parts

    async def _written(self, messages: Sequence[Message]) -> list[_Written]:
        batches: list[_Written] = []
        built = 0
        for each in self._write(messages):
            batches.append(each)
            built += each[1].size
            if built > _BUILT_BYTES:
                built = 0
                await asyncio.sleep(0)
        return batches

    def _write(self, messages: Sequence[Message]) -> Iterator[_Written]:
        """Yield batches that hold `messages`, in the order of each partition."""
        now = int(time.time() * 1000)
        most = self._batch_bytes - HEADER_BYTES
        for place, part in self._by_partition(messages).items():
            at = 0
            while at < len(part):
                first = at
                records, at = self._wire.records(part, at, most)
                batch = WrittenBatch(records, at - first, now, self._settings.compression)
                yield place, batch, part[first:at]

    async def set_aside(self, message: Message) -> str:
        """See `ports.Sink`: the data goes in chunks to a topic beside the others."""
        producer = self._producer
        if producer is None:
            raise SinkUnavailable("the Kafka producer is closed")
        size = self._topics[self._admin.large].limit - _CHUNK_HEADROOM
        chunks = [message.data[at : at + size] for at in range(0, len(message.data), size)]
        key = message.id.encode()
        offsets = []
        with in_our_terms():
            for number, chunk in enumerate(chunks, 1):
                headers = {"ce_id": key, "bridge-chunk": b"%d/%d" % (number, len(chunks))}
                now = int(time.time() * 1000)
                batch = WrittenBatch(record(key, chunk, headers), 1, now, "none")
                async with asyncio.timeout(self._settings.timeout_seconds):
                    (outcome,) = await producer.send([((self._admin.large, 0), batch)])
                if not isinstance(outcome, int):
                    raise outcome
                offsets.append(outcome)
        listed = ",".join(str(offset) for offset in offsets)
        return f"kafka:///{self._admin.large}/0?offsets={listed}"

    async def close(self) -> None:
        """See `ports.Sink`."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await producer.close()
        except Exception as error:  # noqa: BLE001  (whatever it is, the producer is let go)
            _log.debug("producer not closed in order", error=str(error))


def _named(name: str) -> Place:
    topic, _, partition = name.rpartition("/")
    return topic, int(partition)


def _number(message: Message) -> int:
    return message.seq
