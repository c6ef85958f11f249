"""Recorded feeds of real nodes: what they hold, and playing them into a bridge.

The small ones stand in `tests/data/captures`; the others are read from `shared/captures` beside the
project, where that is present.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

__all__ = ["CAPTURES", "Capture", "find_capture", "not_here"]

_HERE = Path(__file__).resolve().parent.parent
_PLACES = (_HERE / "data" / "captures", _HERE.parent.parent / "shared" / "captures")

CAPTURES = (
    "allfields-tcp-json",
    "allfields-tcp-protobuf",
    "allfields-udp-json",
    "allfields-udp-protobuf",
    "backfill",
    "backfill-api",
    "follower-catchup-replay",
    "gap-api",
    "gap-api-replay",
    "gap-long",
    "gap-short",
    "head-gap-long-persistent",
    "replay-from-height",
    "replay-large-always",
    "restart-replay",
    "shutdown-with-queue",
    "tcp-json-once",
    "tcp-protobuf-always-statechange",
    "tcp-protobuf-once",
    "udp-protobuf-once",
    "udp-replay-always",
)
"""Every folder of recordings, by name."""


def find_capture(name: str) -> Capture | None:
    """Return the recording of that name, or None where this machine has it not."""
    for place in _PLACES:
        if (place / name / "events.jsonl").exists():
            return Capture(place / name)
    return None


def not_here(name: str) -> NoReturn:
    """Skip a test for want of that recording, so that nobody takes it for passed."""
    pytest.skip(f"LOUD: the recording {name} is not on this machine (shared/captures)")


@dataclass(frozen=True)
class Capture:
    """One folder of recordings; `shared/captures/README.md` tells the format."""

    folder: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def is_udp(self) -> bool:
        """Whether it was recorded over UDP."""
        return any(self.folder.glob("*-datagrams.jsonl"))

    def events(self) -> list[dict[str, Any]]:
        """Return the independent decoding: a line per event, in order of arrival."""
        lines = (self.folder / "events.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def streams(self) -> list[bytes]:
        """Return the bytes of each TCP connection, in the order in which they were opened."""
        return [path.read_bytes() for path in sorted(self.folder.glob("part*-conn-*.bin"))]

    def datagrams(self) -> Iterator[tuple[int, bytes]]:
        """Yield (source port, bytes) of each datagram, in order of arrival."""
        for path in sorted(self.folder.glob("*-datagrams.jsonl")):
            for line in path.read_text().splitlines():
                datagram = json.loads(line)
                if "b64" in datagram:
                    yield datagram["port"], base64.b64decode(datagram["b64"])

    def payloads(self) -> list[bytes]:
        """Return the payload of each event of `events`, in that order."""
        streams = {path.name: path.read_bytes() for path in self.folder.glob("part*-conn-*.bin")}
        by_port: dict[str, bytearray] = {}
        for path in sorted(self.folder.glob("*-datagrams.jsonl")):
            for line in path.read_text().splitlines():
                datagram = json.loads(line)
                if "b64" in datagram:
                    key = f"{path.name}:{datagram['port']}"
                    by_port.setdefault(key, bytearray()).extend(base64.b64decode(datagram["b64"]))
        streams |= {key: bytes(data) for key, data in by_port.items()}
        found = []
        for event in self.events():
            start = event["off"] + 5
            found.append(streams[event["conn"]][start : start + event["len"]])
        return found

    async def play(self, port: int) -> None:
        """Send the recording to the bridge's feed port, over its own transport."""
        if self.is_udp:
            await self._play_udp(port)
            return
        for stream in self.streams():
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(stream)
            await writer.drain()
            writer.close()
            await writer.wait_closed()

    async def _play_udp(self, port: int) -> None:
        sockets: dict[int, socket.socket] = {}
        try:
            for number, (source, data) in enumerate(self.datagrams()):
                if source not in sockets:
                    sockets[source] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                    sockets[source].connect(("127.0.0.1", port))
                sockets[source].send(data)
                if number % 8 == 7:
                    # UDP has no flow control: leave the receiver time to read.
                    await asyncio.sleep(0.001)
        finally:
            for each in sockets.values():
                each.close()
