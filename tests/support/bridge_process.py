"""The bridge as its users have it: a process of its own, told what to do by the environment."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from prometheus_client.parser import text_string_to_metric_families

from tests.brokers.process import spawn

__all__ = ["BridgeProcess", "Metrics", "run_command"]

_POLL_SECONDS = 0.005
_HTTP_SECONDS = 5
_START_SECONDS = 20
_STOP_SECONDS = 10
_LOG_TAIL = 40

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def run_command(
    *arguments: str, environ: Mapping[str, str] | None = None, seconds: float = 30
) -> subprocess.CompletedProcess[str]:
    """Run `factom-bridge` with `arguments` to its end, and nothing of the developer's settings."""
    return subprocess.run(
        [sys.executable, "-m", "bridge", *arguments],
        env=_environ(environ or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def _environ(chosen: Mapping[str, str]) -> dict[str, str]:
    plain = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    # Wide enough that no line of the output is folded.
    return {**plain, "LC_ALL": "C.UTF-8", "COLUMNS": "250", **chosen}


class Metrics:
    """One reading of `/metrics`."""

    def __init__(self, text: str) -> None:
        self._samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of `name` that have these labels; 0 if there is none."""
        return sum(
            sample.value
            for sample in self._samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def by(self, name: str, label: str) -> dict[str, float]:
        """Return the samples of `name` by one of their labels, added up."""
        found: dict[str, float] = {}
        for sample in self._samples:
            if sample.name == name:
                value = sample.labels[label]
                found[value] = found.get(value, 0) + sample.value
        return found

    @property
    def accepted(self) -> int:
        """Records of the feed committed to the journal since the process started."""
        return int(
            self.total("bridge_events_accepted_total", transport="tcp")
            + self.total("bridge_events_accepted_total", transport="udp")
        )

    def lag(self, sink: str) -> int:
        """Records committed and not yet published to `sink`."""
        return int(self.total("bridge_sink_lag_events", sink=sink))

    @property
    def longest_lag(self) -> int:
        """Of all sinks."""
        return int(max(self.by("bridge_sink_lag_events", "sink").values(), default=0))


class BridgeProcess:
    """`factom-bridge run` with its journal in `folder`, on free ports.

    It may be started again after `kill` or `stop`, on the same journal. Starting and stopping
    block, with a deadline; from a coroutine they go through `asyncio.to_thread`. As a context it
    is started, and killed at the end if it still runs.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.log = folder / "bridge.log"
        self.environ = _environ(
            {
                "BRIDGE_JOURNAL__DIR": str(folder),
                "BRIDGE_FEED__PORT": "0",
                "BRIDGE_STATUS__PORT": "0",
                "BRIDGE_EMBEDDED__PORT": "0",
                "BRIDGE_LOG__FORMAT": "json",
                **(environ or {}),
            }
        )
        self.ports: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process's id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def feed_port(self) -> int:
        """Where the feed is received."""
        return self.ports["feed"]

    @property
    def status_port(self) -> int:
        """Where health and metrics are served."""
        return self.ports["status"]

    @property
    def nats_port(self) -> int:
        """Where the embedded NATS server listens."""
        return self.ports["nats"]

    def start(self, *, seconds: float = _START_SECONDS) -> None:
        """Start it, and return when it receives the feed; its brokers may be away.

        Raises:
            RuntimeError: it ended instead, or took too long; the end of its log is in the message.

        """
        self.launch()
        try:
            self.wait_for(self._has_written_ports, seconds, "receive")
        except BaseException:
            self.kill()
            raise

    def launch(self) -> None:
        """Start it, and return at once."""
        if self.pid is not None:
            raise RuntimeError(f"already running as {self.pid}")
        # The one of the run before would tell ports that are no longer served.
        (self.folder / "ports.json").unlink(missing_ok=True)
        self.ports = {}
        command = [sys.executable, "-m", "bridge", "run"]
        self._process = spawn(command, self.log, self.environ)

    def _has_written_ports(self) -> bool:
        try:
            self.ports = json.loads((self.folder / "ports.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return False
        return True

    def wait_ready(self, seconds: float = 30) -> None:
        """Return when `/readyz` says that every part works. Raises: as `start`."""
        self.wait_for(lambda: bool(self.ready()["ready"]), seconds, "become ready")

    def wait_for(self, holds: Callable[[], bool], seconds: float, what: str) -> None:
        """Return when `holds()` does. Raises: as `start`."""
        deadline = time.monotonic() + seconds
        while not holds():
            self._check_alive()
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"did not {what} in {seconds} s; end of {self.log}:\n{self.tail}"
                )
            time.sleep(_POLL_SECONDS)

    def _check_alive(self) -> None:
        if self._process is None or (code := self._process.poll()) is not None:
            code = self._process.returncode if self._process else None
            raise RuntimeError(f"ended with {code}; end of {self.log}:\n{self.tail}")

    async def delivered(self, accepted: int, seconds: float = 60) -> Metrics:
        """Return when it has accepted that many records in this run and every sink has them.

        Raises:
            RuntimeError: it ended, or a sink did not get them in time; says how far it came.

        """
        deadline = time.monotonic() + seconds
        while True:
            metrics = await asyncio.to_thread(self.metrics)
            if metrics.accepted >= accepted and not metrics.longest_lag:
                return metrics
            self._check_alive()
            if time.monotonic() > deadline:
                lag = metrics.by("bridge_sink_lag_events", "sink")
                raise RuntimeError(
                    f"accepted {metrics.accepted} of {accepted} in {seconds} s, lag {lag};"
                    f" end of {self.log}:\n{self.tail}"
                )
            await asyncio.sleep(0.02)

    @property
    def tail(self) -> str:
        """The end of its log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_LOG_TAIL:])

    def logged(self) -> list[dict[str, Any]]:
        """Return the lines of its log so far; one that is no JSON fails."""
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line]

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Return status and body of `path` of its status port.

        Raises:
            OSError: it does not answer.

        """
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.status_port}{path}", headers=dict(headers or {})
        )
        try:
            with _direct.open(request, timeout=_HTTP_SECONDS) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def ready(self) -> dict[str, Any]:
        """Return what `/readyz` says, whatever its status."""
        found: dict[str, Any] = json.loads(self.get("/readyz")[1])
        return found

    def metrics(self) -> Metrics:
        """Return what `/metrics` says."""
        return Metrics(self.get("/metrics")[1])

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, and return at once."""
        if self._process is not None:
            self._process.send_signal(number)

    def terminate(self) -> None:
        """Ask it to end (SIGTERM), and return at once."""
        self.send_signal(signal.SIGTERM)

    def wait(self, seconds: float = _STOP_SECONDS) -> int:
        """Return its exit code.

        Raises:
            RuntimeError: it did not end in time, and was killed.

        """
        assert self._process is not None, "never started"
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RuntimeError(
                f"did not end in {seconds} s; end of {self.log}:\n{self.tail}"
            ) from None

    def stop(self) -> None:
        """End it as a supervisor does: SIGTERM, then exit 0 within 10 s. Raises: as `wait`."""
        self.terminate()
        if code := self.wait():
            raise RuntimeError(f"ended with {code}; end of {self.log}:\n{self.tail}")

    def kill(self) -> None:
        """End it as a crash would (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
