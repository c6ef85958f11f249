"""A real NATS server with JetStream, for one test."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

from tests.brokers.process import HOST, Broker

__all__ = ["NatsBroker"]


class NatsBroker(Broker):
    """The `nats-server` of the wheel, with its file store in `folder`.

    `config` is appended to its configuration file: limits, users, TLS. With the server's own
    `sync_interval` (two minutes) a test of lost power would prove nothing, hence "always".
    """

    start_seconds = 10

    def __init__(self, folder: Path, *, config: str = "", sync_interval: str = "always") -> None:
        super().__init__(folder, "nats")
        self.url = f"nats://{HOST}:{self.port}"
        self._config = config
        self._sync_interval = sync_interval

    def _prepare(self) -> list[str]:
        path = self.folder / "nats.conf"
        store = json.dumps(str(self.folder))
        path.write_text(
            f'server_name: "test"\nlisten: "{HOST}:{self.port}"\n'
            f"jetstream {{ store_dir: {store}, sync_interval: {self._sync_interval} }}\n"
            f"{self._config}\n",
            encoding="utf-8",
        )
        return [str(Path(sys.executable).with_name("nats-server")), "-c", str(path)]

    def _answers(self, connection: socket.socket) -> bool:
        with connection.makefile("rb") as stream:
            return b'"jetstream":true' in stream.readline()
