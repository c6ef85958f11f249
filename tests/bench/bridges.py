"""A bridge as a child process, measured from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import NamedTuple, Self

import psutil

from tests.support.bridge_process import Metrics

__all__ = ["BenchBridge", "Progress", "Untrue", "wait_of"]

_START_SECONDS = 60
_READY_SECONDS = 120
_OWN = ("gap-alert", "block-receipt", "dead-letter")
"""Kinds of messages that the bridge makes: they are not what was sent to it."""

_TWO = "name[]=bridge_events_accepted_total&name[]=bridge_messages_published_total"

_LAG = "bridge_tracker_lag_events"
_TRACKED_SECONDS = 60
_LOOK_SECONDS = 0.01, 1.0
"""The shortest and the longest time between two looks."""
_SHARE = 0.1
"""Of the time so far, the longest: a feed begins slowly."""

_NOTHING = (
    "bridge_alerts_total",
    "bridge_dead_letters_total",
    "bridge_duplicates_total",
    "bridge_events_left_out_total",
    "bridge_events_recovered_total",
    "bridge_gaps_open",
    "bridge_heights_missing",
    "bridge_refused_total",
    "bridge_storage_refusals_total",
)
"""What a run that lost nothing leaves at 0."""


class Untrue(RuntimeError):
    """The run was not what was to be measured: something was lost, refused or alerted."""


class Progress(NamedTuple):
    """Events accepted, and how many of them every sink has published."""

    accepted: int
    published: int


def wait_of(left: float, done: float, seconds: float) -> float:
    """Return how long to wait before the next look, when so much was done in so many seconds.

    Asking costs the bridge: so it is asked when half of what is left must be done.
    """
    shortest, longest = _LOOK_SECONDS
    return min(longest, max(shortest, min(_SHARE, left / max(1, done) / 2) * seconds))


class BenchBridge:
    """Runs `factom-bridge run` with `environ` and a journal in `folder`, for a `with`.

    `cores` are those that it may run on; None: any.
    """

    def __init__(
        self, folder: Path, environ: dict[str, str], cores: frozenset[int] | None = None
    ) -> None:
        self._folder = folder
        self._cores = cores
        self._environ = environ | {
            "BRIDGE_JOURNAL__DIR": str(folder),
            "BRIDGE_FEED__PORT": "0",
            "BRIDGE_STATUS__PORT": "0",
            "BRIDGE_LOG__LEVEL": "error",
            "PATH": os.environ["PATH"],
        }

    def __enter__(self) -> Self:
        ports = self._folder / "ports.json"
        ports.unlink(missing_ok=True)
        self.started = time.perf_counter()
        mine = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self._cores or mine)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bridge", "run"], env=self._environ, start_new_session=True
            )
        finally:
            os.sched_setaffinity(0, mine)
        try:
            self._psutil = psutil.Process(self._process.pid)
            while not ports.exists():
                if self._process.poll() is not None or self.seconds > _START_SECONDS:
                    raise RuntimeError("the bridge did not start")
                time.sleep(0.005)
            found = json.loads(ports.read_text())
        except BaseException:
            self.__exit__()
            raise
        self.feed_port: int = found["feed"]
        self._status = f"http://127.0.0.1:{found['status']}"
        self._asking = HTTPConnection("127.0.0.1", found["status"], timeout=30)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    @property
    def seconds(self) -> float:
        """Time since it was started."""
        return time.perf_counter() - self.started

    def cpu_seconds(self) -> float:
        """CPU time that the bridge has used so far."""
        times = self._psutil.cpu_times()
        return times.user + times.system

    def memory_bytes(self) -> int:
        """Resident memory now."""
        size: int = self._psutil.memory_info().rss
        return size

    def peak_bytes(self) -> int:
        """Most resident memory that it ever had."""
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("the kernel does not tell VmHWM")

    def is_ready(self) -> bool:
        """Whether `/readyz` says so."""
        try:
            with urllib.request.urlopen(f"{self._status}/readyz", timeout=10):
                return True
        except urllib.error.HTTPError:
            return False

    def wait_ready(self) -> float:
        """Return once every part is ready, with the seconds since the start.

        Raises:
            Untrue: it does not become ready.
        """
        while not self.is_ready():
            if self.seconds > _READY_SECONDS:
                raise Untrue("the bridge does not become ready")
            time.sleep(0.01)
        return self.seconds

    def metrics(self) -> Metrics:
        """Return what `/metrics` says."""
        with urllib.request.urlopen(f"{self._status}/metrics", timeout=30) as answer:
            return Metrics(answer.read().decode())

    def progress(self) -> Progress:
        """Return how far it is; asked often, so that only two metrics are told and read."""
        lines = self._ask(f"/metrics?{_TWO}").splitlines()
        accepted, published = 0.0, dict[str, float]()
        for line in lines:
            if line.startswith("bridge_events_accepted_total{"):
                if 'transport="bridge"' not in line:
                    accepted += float(line.rpartition(" ")[2])
            elif line.startswith("bridge_messages_published_total{") and not any(
                f'kind="{kind}"' in line for kind in _OWN
            ):
                sink = line.partition('sink="')[2].partition('"')[0]
                published[sink] = published.get(sink, 0.0) + float(line.rpartition(" ")[2])
        return Progress(int(accepted), int(min(published.values(), default=0)))

    def wait_tracked(self) -> float:
        """Return when the tracker has caught up, by `time.perf_counter`."""
        began = time.perf_counter()
        first = lag = self._lag()
        while lag:
            seconds = time.perf_counter() - began
            if seconds > _TRACKED_SECONDS:
                raise Untrue(f"the tracker does not catch up, it is {lag} events behind")
            time.sleep(wait_of(lag, first - lag, seconds))
            lag = self._lag()
        return time.perf_counter()

    def _lag(self) -> float:
        lines = self._ask(f"/metrics?name[]={_LAG}").splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{_LAG} "))

    def _ask(self, path: str) -> str:
        """Ask on one connection that stays: a new one each time would cost the bridge more."""
        try:
            self._asking.request("GET", path)
            return self._asking.getresponse().read().decode()
        except (HTTPException, OSError):
            # It was idle for so long that the bridge closed it.
            self._asking.close()
            self._asking.request("GET", path)
            return self._asking.getresponse().read().decode()

    def check(self, blocks: int, patience_seconds: float = 60) -> None:
        """Return once all of the feed's `blocks` are verified and nothing was wrong.

        Raises:
            Untrue: something was lost, refused, sent twice, recovered or alerted.
        """
        deadline = time.monotonic() + patience_seconds
        while True:
            metrics = self.metrics()
            verdicts = metrics.by("bridge_blocks_total", "verdict")
            wrong = {name: metrics.total(name) for name in _NOTHING if metrics.total(name)}
            if wrong or verdicts.keys() - {"new"}:
                raise Untrue(f"the bridge has to tell of {wrong}, and blocks are {verdicts}")
            if verdicts.get("new", 0) == blocks:
                return
            if time.monotonic() > deadline:
                raise Untrue(f"of {blocks} blocks the tracker has seen {verdicts}")
            time.sleep(0.05)
