"""How long an event takes from the socket to a consumer, at 1,000 events a second.

A consumer is told of an event after the broker has stored it, and so at the acknowledgement or
later: the time is an upper bound of that to the acknowledgement.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import time
from collections.abc import Callable
from contextlib import closing
from statistics import quantiles
from typing import Any

import nats
from confluent_kafka import Consumer, TopicPartition

from tests.bench.bridges import BenchBridge, Untrue
from tests.bench.feeds import FeedMaker
from tests.bench.ground import Ground, environ_of

__all__ = ["measure"]

_PER_SECOND = 1_000
_SECONDS, _WARM_SECONDS = 15, 2
_LATE_SECONDS = 30


def measure(ground: Ground) -> dict[str, dict[str, float]]:
    """Return p50, p99 and the most, in ms, by target."""
    return {
        target: ground.repeat(f"latency {target}", _run, ground, target)
        for target in ("kafka", "nats", "nats always")
    }


def _run(ground: Ground, target: str) -> dict[str, float]:
    environ = environ_of(ground, target, "protobuf")
    seconds = _WARM_SECONDS + max(3, _SECONDS * ground.options.scale)
    frames = FeedMaker(3).commits(int(_PER_SECOND * seconds))
    sent = multiprocessing.Array("d", len(frames), lock=False)
    with ground.journal() as folder, BenchBridge(folder, environ, ground.cores) as bridge:
        bridge.wait_ready()
        arguments = (frames, bridge.feed_port, sent)
        sender = multiprocessing.Process(target=_send, args=arguments, daemon=True)
        try:
            if target == "kafka":
                topic = f"{environ['BRIDGE_PREFIX']}.entry-commit"
                came = _from_kafka(ground.kafka.bootstrap, topic, len(frames), sender.start)
            else:
                stream, url = environ["BRIDGE_NATS__STREAM"], environ["BRIDGE_NATS__SERVERS"]
                came = asyncio.run(_from_nats(url, stream, len(frames), sender.start))
        finally:
            if sender.is_alive():
                sender.kill()
        bridge.check(0)
    # In order, and none twice: the n-th that came is the n-th that was sent.
    took = [(then - at) * 1000 for at, then in zip(sent, came, strict=True)]
    cuts = quantiles(took[_WARM_SECONDS * _PER_SECOND :], n=1000)
    return {"p50_ms": cuts[499], "p99_ms": cuts[989], "p999_ms": cuts[998], "events": len(took)}


def _send(frames: list[bytes], port: int, sent: Any) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began = time.perf_counter()
        for number, frame in enumerate(frames):
            time.sleep(max(0.0, began + number / _PER_SECOND - time.perf_counter()))
            sent[number] = time.perf_counter()
            connection.sendall(frame)


def _from_kafka(bootstrap: str, topic: str, count: int, start: Callable[[], None]) -> list[float]:
    """Return when each of `count` messages came, which `start` lets come."""
    settings = {
        "bootstrap.servers": bootstrap,
        "group.id": topic,
        "enable.auto.commit": False,
        "fetch.wait.max.ms": 1_000,
    }
    came: list[float] = []
    with closing(Consumer(settings)) as consumer:
        consumer.assign([TopicPartition(topic, 0, 0)])
        consumer.poll(1)
        start()
        deadline = time.monotonic() + count / _PER_SECOND + _LATE_SECONDS
        while len(came) < count:
            messages = consumer.consume(count - len(came), 0.001)
            now = time.perf_counter()
            for message in messages:
                if message.error():
                    raise Untrue(f"the consumer fails: {message.error()}")
                came.append(now)
            if time.monotonic() > deadline:
                raise Untrue(f"only {len(came)} of {count} messages came")
    return came


async def _from_nats(url: str, stream: str, count: int, start: Callable[[], None]) -> list[float]:
    """Return when each of `count` messages came, which `start` lets come."""
    came: list[float] = []
    complete = asyncio.Event()

    async def arrived(_message: object) -> None:
        came.append(time.perf_counter())
        if len(came) == count:
            complete.set()

    client = await nats.connect(url)
    try:
        jetstream = client.jetstream()
        subject = f"{stream}.entry-commit"
        await jetstream.subscribe(subject, stream=stream, ordered_consumer=True, cb=arrived)
        start()
        try:
            await asyncio.wait_for(complete.wait(), count / _PER_SECOND + _LATE_SECONDS)
        except TimeoutError as error:
            raise Untrue(f"only {len(came)} of {count} messages came") from error
    finally:
        await client.close()
    return came
