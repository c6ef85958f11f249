"""What a developer would write by hand in an afternoon: no journal, no headers, no order kept.

Each reads frames, tells the kind by the outer tag, and sends the payload to a topic of that kind.
Run in this process, from memory: even the socket is left out, in the script's favour.
"""

from __future__ import annotations

import asyncio
import time

import nats
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

__all__ = ["kafka_script", "nats_script"]

_IN_FLIGHT = 1_000


def _kind(frame: bytes) -> int:
    """Return the number of the event's member: the tag behind the identity."""
    at = 5
    if frame[at] == 0x08:
        at += 2
    if frame[at] == 0x1A:
        at += 34
    return frame[at] >> 3


def kafka_script(frames: list[bytes], bootstrap: str) -> tuple[float, float]:
    """Return the seconds and CPU seconds that it took to send `frames` through librdkafka."""
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

    began, cpu = time.perf_counter(), time.process_time()
    for frame in frames:
        while True:
            try:
                producer.produce(f"{name}.{_kind(frame)}", frame[5:], on_delivery=delivered)
            except BufferError:
                producer.poll(0.01)
            else:
                break
        producer.poll(0)
    producer.flush()
    if failed:
        raise RuntimeError(f"the script lost {len(failed)} messages: {failed[0]}")
    return time.perf_counter() - began, time.process_time() - cpu


def _make_topics(bootstrap: str, names: list[str]) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    topics = [NewTopic(name, 1, 1, config={"max.message.bytes": "16777216"}) for name in names]
    for made in admin.create_topics(topics).values():
        made.result(30)


def nats_script(frames: list[bytes], url: str) -> tuple[float, float]:
    """Return the seconds and CPU seconds that it took to send `frames` to a stream."""
    return asyncio.run(_nats_script(frames, url))


async def _nats_script(frames: list[bytes], url: str) -> tuple[float, float]:
    name = f"script{time.time_ns()}"
    client = await nats.connect(url)
    jetstream = client.jetstream(publish_async_max_pending=_IN_FLIGHT)
    await jetstream.add_stream(name=name, subjects=[f"{name}.>"])
    began, cpu = time.perf_counter(), time.process_time()
    for frame in frames:
        await jetstream.publish_async(f"{name}.{_kind(frame)}", frame[5:], wait_stall=30)
    await jetstream.publish_async_completed()
    took = time.perf_counter() - began, time.process_time() - cpu
    stored = (await jetstream.stream_info(name)).state.messages
    if stored != len(frames):
        raise RuntimeError(f"the script stored {stored} of {len(frames)} messages")
    await jetstream.delete_stream(name)
    await client.close()
    return took
