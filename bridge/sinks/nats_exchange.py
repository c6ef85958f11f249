"""Sends blocks of commands to a NATS server, several at a time, and brings the answers to each."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import nats.errors
import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg

from bridge.errors import SinkUnavailable, SinkWedged

__all__ = ["Answer", "Exchanges"]

_WEDGED_AFTER = 3
_PING_SECONDS = 2
_NOBODY = {"err_code": 503, "description": "JetStream does not answer"}

Answer = dict[str, Any]
"""What JetStream says of a message or of a batch."""


class _Open:
    """An exchange that is under way."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.found: dict[str, Answer] = {}
        self.complete = asyncio.Event()


class Exchanges:
    """Those of one connection after another; each is named by the subject of its answers."""

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._client: Client | None = None
        self._lost = asyncio.Event()
        self._inbox = ""
        self._begun = 0
        self._open: dict[str, _Open] = {}
        self._timeouts = 0

    @property
    def client(self) -> Client:
        """The connection. Raises SinkUnavailable when it is lost."""
        if self._client is None or not self._client.is_connected:
            raise SinkUnavailable("the connection to the NATS server was lost")
        return self._client

    async def begin(self, client: Client, lost: asyncio.Event) -> None:
        """Use `client`, whose loss sets `lost`. What was under way before is given up."""
        self._client, self._lost = client, lost
        self._open = {}
        self._inbox = client.new_inbox() + "."
        await client.subscribe(f"{self._inbox}*.*", cb=self._answered)

    def end(self) -> Client | None:
        """Return the connection, which is not used any more."""
        client, self._client = self._client, None
        return client

    def new(self, count: int) -> str:
        """Return the prefix of the subjects of `count` answers, whose last part is a number."""
        prefix = f"{self._inbox}{self._begun}."
        self._begun += 1
        self._open[prefix] = _Open(count)
        return prefix

    async def send(self, data: bytes) -> None:
        """Send a block, without waiting for an answer. Raises: as `client`."""
        client = self.client
        # The library's own publishing writes the same bytes, at ten times the cost: it checks
        # and encodes each header alone. `tests/contract/test_nats_private.py` holds these two.
        await client._send_command(data)  # noqa: SLF001
        await client._flush_pending()  # noqa: SLF001

    async def answers(self, prefix: str) -> list[Answer]:
        """Return the server's answers, by their numbers.

        Raises:
            SinkUnavailable: the connection is lost, or it does not answer in time.
            SinkWedged: it does not, time and again, though it is there.
        """
        answers = self._open[prefix]
        await self._unless_lost(answers.complete.wait())
        del self._open[prefix]
        return [answers.found[str(number)] for number in range(answers.count)]

    async def _answered(self, message: Msg) -> None:
        prefix, _, number = message.subject.rpartition(".")
        answers = self._open.get(prefix + ".")
        if answers is None:
            return
        answers.found[number] = orjson.loads(message.data or b"{}")
        if message.headers and message.headers.get("Status") == "503":
            answers.found[number] = {"error": _NOBODY}
        if len(answers.found) == answers.count:
            answers.complete.set()

    async def _unless_lost(self, waiting: Coroutine[Any, Any, Any]) -> None:
        """Return when what is waited for is there, or fail as soon as the connection is lost."""
        work = asyncio.ensure_future(waiting)
        lost = asyncio.ensure_future(self._lost.wait())
        try:
            await asyncio.wait(
                (work, lost),
                timeout=self._timeout_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if work.done():
                self._timeouts = 0
                return
            if lost.done():
                raise SinkUnavailable("the connection to the NATS server was lost")
            raise await self._silent()
        finally:
            work.cancel()
            lost.cancel()
            await asyncio.gather(work, lost, return_exceptions=True)

    async def _silent(self) -> SinkUnavailable:
        """Return what to make of a server that did not acknowledge in time (delivery.md, D11)."""
        self._timeouts += 1
        if self._timeouts >= _WEDGED_AFTER and self._client is not None:
            try:
                await self._client.flush(timeout=_PING_SECONDS)
            except (nats.errors.Error, OSError, TimeoutError):
                pass
            else:
                self._timeouts = 0
                return SinkWedged("the NATS server answers, and acknowledges nothing")
        return SinkUnavailable("the NATS server did not acknowledge in time")
