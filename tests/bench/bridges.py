"""A bridge as a child process, measured from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple, Self

import psutil

__all__ = ["BenchBridge", "Progress"]

_START_SECONDS = 20


class Progress(NamedTuple):
    """Events accepted, and messages that every sink has published."""

    accepted: int
    published: int


class BenchBridge:
    """Runs `factom-bridge run` with `environ` and a journal in `folder`, for a `with`."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self._folder = folder
        self._environ = environ | {
            "BRIDGE_JOURNAL__DIR": str(folder),
            "BRIDGE_FEED__PORT": "0",
            "BRIDGE_STATUS__PORT": "0",
            "BRIDGE_LOG__LEVEL": "error",
            "PATH": os.environ["PATH"],
        }

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bridge", "run"], env=self._environ, start_new_session=True
        )
        self._psutil = psutil.Process(self._process.pid)
        ports = self._folder / "ports.json"
        deadline = time.monotonic() + _START_SECONDS
        while not ports.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the bridge did not start")
            time.sleep(0.02)
        found = json.loads(ports.read_text())
        self.feed_port: int = found["feed"]
        self._metrics = f"http://127.0.0.1:{found['status']}/metrics"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def cpu_seconds(self) -> float:
        """CPU time that the bridge has used so far."""
        times = self._psutil.cpu_times()
        return times.user + times.system

    def memory_bytes(self) -> int:
        """Resident memory now."""
        size: int = self._psutil.memory_info().rss
        return size

    def progress(self) -> Progress:
        """Return how far it is."""
        with urllib.request.urlopen(self._metrics, timeout=10) as answer:
            text = answer.read().decode()
        accepted, published = 0.0, dict[str, float]()
        for line in text.splitlines():
            if (
                line.startswith("bridge_events_accepted_total{")
                and 'transport="bridge"' not in line
            ):
                accepted += float(line.rpartition(" ")[2])
            elif line.startswith("bridge_messages_published_total{"):
                sink = line.partition('sink="')[2].partition('"')[0]
                published[sink] = published.get(sink, 0.0) + float(line.rpartition(" ")[2])
        return Progress(int(accepted), int(min(published.values(), default=0)))
