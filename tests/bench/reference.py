"""What a developer would write by hand in an afternoon: no journal, no headers, no order kept.

Each is an asyncio server that reads frames off one connection, tells the kind by the outer tag, and
sends the payload to a topic of that kind.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import nats
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

__all__ = ["Took", "kafka_script", "nats_script"]

_IN_FLIGHT = 1_000
_READ_BYTES = 1024 * 1024


class Took(NamedTuple):
    """Seconds and CPU seconds between the connection and the last acknowledgement."""

    seconds: float
    cpu: float


def kafka_script(listening: socket.socket, bootstrap: str) -> Took:
    """Send what comes over the one connection to `listening` through librdkafka."""
    name = f"script{time.time_ns()}"
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 5,
            "batch.size": 1_000_000,
            "message.max.bytes": 16_000_000,
            "queue.buffering.max.messages": 1_000_000,
            "compression.type": "lz4",
        }
    )
    _make_topics(bootstrap, [f"{name}.{kind}" for kind in range(4, 12)])
    failed: list[object] = []

    def delivered(error: object, _message: object) -> None:
        if error is not None:
            failed.append(error)

    async def publish(reader: asyncio.StreamReader) -> None:
        while header := await _header(reader):
            payload = await reader.readexactly(int.from_bytes(header[1:], "little"))
            topic = f"{name}.{_kind(payload)}"
            while True:
                try:
                    producer.produce(topic, payload, on_delivery=delivered)
                except BufferError:
                    producer.poll(0.01)
                else:
                    break
            producer.poll(0)
        producer.flush()

    took = asyncio.run(_serve(listening, publish))
    if failed:
        raise RuntimeError(f"the script lost {len(failed)} messages: {failed[0]}")
    return took


def _make_topics(bootstrap: str, names: list[str]) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    topics = [NewTopic(name, 1, 1, config={"max.message.bytes": "16777216"}) for name in names]
    for made in admin.create_topics(topics).values():
        made.result(30)


def nats_script(listening: socket.socket, url: str, count: int) -> Took:
    """Send the `count` events that come over the one connection to `listening` to a stream."""
    return asyncio.run(_nats_script(listening, url, count))


async def _nats_script(listening: socket.socket, url: str, count: int) -> Took:
    name = f"script{time.time_ns()}"
    client = await nats.connect(url)
    jetstream = client.jetstream(publish_async_max_pending=_IN_FLIGHT)
    await jetstream.add_stream(name=name, subjects=[f"{name}.>"])

    async def publish(reader: asyncio.StreamReader) -> None:
        while header := await _header(reader):
            payload = await reader.readexactly(int.from_bytes(header[1:], "little"))
            await jetstream.publish_async(f"{name}.{_kind(payload)}", payload, wait_stall=30)
        await jetstream.publish_async_completed()

    took = await _serve(listening, publish)
    stored = (await jetstream.stream_info(name)).state.messages
    if stored != count:
        raise RuntimeError(f"the script stored {stored} of {count} messages")
    await jetstream.delete_stream(name)
    await client.close()
    return took


async def _serve(
    listening: socket.socket, publish: Callable[[asyncio.StreamReader], Awaitable[None]]
) -> Took:
    done: asyncio.Future[Took] = asyncio.get_running_loop().create_future()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        began, cpu = time.perf_counter(), time.process_time()
        try:
            await publish(reader)
            done.set_result(Took(time.perf_counter() - began, time.process_time() - cpu))
        except Exception as error:
            done.set_exception(error)
        writer.close()

    async with await asyncio.start_server(connected, sock=listening, limit=_READ_BYTES):
        return await done


async def _header(reader: asyncio.StreamReader) -> bytes:
    """Return the next frame's header; nothing at the end."""
    try:
        return await reader.readexactly(5)
    except asyncio.IncompleteReadError:
        return b""


def _kind(payload: bytes) -> int:
    """Return the number of the event's member: the tag behind the identity."""
    at = 0
    if payload[at] == 0x08:
        at += 2
    if payload[at] == 0x1A:
        at += 34
    return payload[at] >> 3
