"""What every broker of the tests is: a child process on loopback that can be hurt and started again.

Start and stop block, with a deadline; from a coroutine they go through `asyncio.to_thread`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import SystemRandom
from typing import Self

__all__ = ["ENVIRONMENT", "HOST", "Broker", "free_port", "spawn"]

HOST = "127.0.0.1"
# Nothing of the developer's (JAVA_TOOL_OPTIONS, proxies) makes one machine differ from another.
ENVIRONMENT = {"LC_ALL": "C.UTF-8"}
_POLL_SECONDS = 0.01
_ANSWER_SECONDS = 1
_STOP_SECONDS = 10
_LOG_TAIL = 40

# Run by the child before it becomes the broker: asks the kernel to end it with its parent, since a
# test run that is killed cannot tidy up; and ends itself when the parent was gone before it asked.
_LAUNCHER = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""

# The kernel's "parent" is the thread that forked, not its process: a broker started by a worker of
# `asyncio.to_thread` would die with its event loop. This one thread lives as long as the process.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="broker-spawner")


def _deal_ports() -> Iterator[int]:
    """Yield ports that nobody listens on, in random order, none twice.

    They lie below the range from which the kernel takes ports for outgoing connections. In that
    range a client that tries again and again to reach a stopped broker ends up connected to
    itself, and the broker finds its port taken.
    """
    candidates = range(20_000, 32_000)
    # Not the module's generator: its seed is set for each test, and may be the same in two runs.
    for port in SystemRandom().sample(candidates, len(candidates)):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        yield port


_ports = _deal_ports()


def free_port() -> int:
    """Return a port that is free and was not given to anybody else in this process."""
    return next(_ports)


def spawn(
    command: list[str], log: Path, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start `command`, which ends with this process, however that ends; its output goes to `log`.

    Without `env`, nothing of the developer's (JAVA_TOOL_OPTIONS, proxies) makes one machine differ.
    """
    launch = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]
    with log.open("ab") as output:
        return _spawner.submit(
            subprocess.Popen,
            launch,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=env or ENVIRONMENT,
        ).result()


class Broker(ABC):
    """A server that keeps its port and its data over `stop`, `kill` and `start`."""

    start_seconds: float = 60

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.log = folder / f"{name}.log"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _prepare(self) -> list[str]:
        """Write what the server reads, and return its command line."""

    @abstractmethod
    def _answers(self, connection: socket.socket) -> bool:
        """Whether the server that was reached does its work; an OSError says no."""

    @property
    def pid(self) -> int | None:
        """The child's process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Start the server and return when it does its work.

        Raises:
            RuntimeError: it died or did not answer in time; the end of its log is in the message.

        """
        if self.pid is not None:
            raise RuntimeError(f"already running as {self.pid}")
        self._process = process = spawn(self._prepare(), self.log)
        deadline = time.monotonic() + self.start_seconds
        try:
            while not self._is_ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(self._why(process.poll()))
                time.sleep(_POLL_SECONDS)
        except BaseException:
            self.kill()
            raise

    def _why(self, code: int | None) -> str:
        what = f"no answer in {self.start_seconds} s" if code is None else f"died with {code}"
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_TAIL:]
        return "\n".join((f"{what}; end of {self.log}:", *lines))

    def _is_ready(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), _ANSWER_SECONDS) as connection:
                return self._answers(connection)
        except OSError:
            return False

    def stop(self) -> None:
        """End it politely, then not; also when it is paused."""
        if self._process is None:
            return
        self._process.terminate()
        self.resume()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it as a crash would (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """Let it hang (SIGSTOP): connections stay open and nobody answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
