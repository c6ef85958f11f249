"""NATS JetStream, through nats-py.

A batch goes out as one atomic batch (server 2.12 and newer): one acknowledgement and one sync for
up to 1,000 messages, all stored or none, which is also what keeps the order; a few messages go one
by one, which keeps it too, and is sooner over. The server rejects a
batch that holds an id it knows already; that one is sent again in a counted window, where a
duplicate is a success, as is every batch to an older server. Ids acknowledged lately are kept, so
that a block which a node sends again costs nothing.

The client is never left to reconnect by itself: its futures do not resolve after a disconnect.
A lost connection fails the batch; the lane opens the sink anew and sends it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

import nats.errors
import nats.js.errors
import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ObjectMeta, ObjectMetaOptions, StorageType

from bridge import log
from bridge.core.natswire import NatsWire
from bridge.core.recent import Recent
from bridge.core.routing import Routes
from bridge.errors import MessageRefused, SinkFault, SinkUnavailable, SinkWedged
from bridge.model import Kind, Message, Standing, Tail
from bridge.settings import NatsSettings
from bridge.sinks.nats_batch import Batch, Block, Written, batches
from bridge.sinks.nats_connection import connect, in_our_terms

__all__ = ["NatsSink"]

_log = log.get("nats")

_WINDOW = 256
_FEW = 8
"""So many go one by one: for an atomic batch the server makes and removes files, for 5 to 15 ms."""

_KNOWN_IDS = 25_000
_CHUNK_BYTES, _CHUNK_HEADROOM = 128 * 1024, 1_024
_WEDGED_AFTER = 3
_PING_SECONDS = 2
_AUDIT_SECONDS = 60
"""How often it is asked, while idle, whether it still holds what it acknowledged."""
_CLOSE_SECONDS = 2

# Codes of the server's errors (nats-server 2.12, `server/errors.json`).
_DUPLICATE_IN_BATCH = 10201
_TOO_LARGE = 10054
_NO_SUCH_STREAM = {10059, 10060}
_FULL = {10023, 10047, 10077}

_NOBODY = {"err_code": 503, "description": "JetStream does not answer"}


class _Answers:
    """The server's answers to one exchange, by their number."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.found: dict[str, dict[str, Any]] = {}
        self.complete = asyncio.Event()


class NatsSink:
    """See `ports.Sink`. `epoch` is the journal's."""

    name = "nats"

    def __init__(self, settings: NatsSettings, routes: Routes, epoch: str) -> None:
        self._settings = settings
        self._routes = routes
        self._epoch = epoch
        self._client: Client | None = None
        self._lost = asyncio.Event()
        self._limit = 0
        self._atomic = False
        self._batches = 0
        self._known = Recent(_KNOWN_IDS)
        self._stored = 0
        self._timeouts = 0
        self._wire = NatsWire(settings.stream, routes, epoch)
        self._inbox = ""
        self._exchanges = 0
        self._expected = ""
        self._answers = _Answers(0)
        self._prepared: tuple[Sequence[Message], list[str], list[Written]] | None = None

    def limit(self, kind: Kind) -> int:
        """See `ports.Sink`: one limit for all kinds, the server's or the stream's."""
        return self._limit

    async def open(self) -> None:
        """See `ports.Sink`."""
        settings = self._settings
        self._prepared = None
        self._lost = lost = asyncio.Event()

        async def closed() -> None:
            lost.set()

        with in_our_terms():
            client, stream = await asyncio.wait_for(
                connect(settings, f"{self._routes.prefix}.>", closed), settings.timeout_seconds
            )
            self._client = client
            self._atomic, self._limit = stream
            self._inbox = client.new_inbox() + "."
            await client.subscribe(f"{self._inbox}*.*", cb=self._answered)

    @property
    def mark(self) -> bytes | None:
        """See `ports.Sink`: the number in the stream of the last message that was stored."""
        return str(self._stored).encode() if self._stored else None

    async def standing(
        self, mark: bytes | None, ours: Callable[[Tail], Awaitable[bool]]
    ) -> Standing:
        """See `ports.Sink`: one lane fills one stream, so what is before the last is there.

        Not so behind a message of a counted window: one before it may have been refused.

        A server that was set back tells a lower last number than it once acknowledged. Messages
        that grew old, or were purged, do not lower it.
        """
        stream = self._settings.stream
        with in_our_terms():
            jetstream = self._connected().jetstream(timeout=self._settings.timeout_seconds)
            state = (await jetstream.stream_info(stream)).state
            try:
                last = await jetstream.get_last_msg(stream, f"{self._routes.prefix}.>")
                headers = last.headers or {}
            except nats.js.errors.NotFoundError:
                headers = {}
        lost = mark is not None and state.last_seq < int(mark)
        tail = None
        if headers.get("bridge-epoch") == self._epoch and "bridge-window" not in headers:
            tail = Tail(int(headers["bridge-seq"]), headers["Nats-Msg-Id"])
        if lost or tail is None or tail.id not in self._known:
            self._known.clear()
        self._stored = min(int(mark or 0), state.last_seq)
        return Standing(tail if tail is not None and await ours(tail) else None, lost)

    async def watch(self) -> NoReturn:
        """See `ports.Sink`: the client tells when its connection is lost, the stream what it has."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._lost.wait(), _AUDIT_SECONDS)
                raise SinkUnavailable("the connection to the NATS server was lost")
            with in_our_terms():
                jetstream = self._connected().jetstream(timeout=self._settings.timeout_seconds)
                state = (await jetstream.stream_info(self._settings.stream)).state
            if state.last_seq < self._stored:
                raise SinkUnavailable("the stream has lost what it had acknowledged")

    def prepare(self, messages: Sequence[Message]) -> None:
        """See `ports.Sink`: atomic batches, for the stream knows none of the messages as a rule."""
        ids = [message.id for message in messages]
        whole = Batch(list(messages), range(len(messages)))
        self._prepared = messages, ids, [self._written(batch) for batch in batches(whole)]

    def _written(self, batch: Batch) -> Written:
        """Return `batch` with its block, if it is to be atomic."""
        if not self._atomic or len(batch.messages) <= _FEW:
            return batch, None
        self._batches += 1
        return batch, self._block(batch.messages, f"{self._epoch}-{self._batches}")

    async def publish(self, messages: Sequence[Message]) -> int:
        """See `ports.Sink`."""
        prepared, self._prepared = self._prepared, None
        if prepared is not None and prepared[0] is messages and self._are_new(prepared[1]):
            written, duplicates = iter(prepared[2]), 0
        else:
            whole = self._fresh(messages)
            written = map(self._written, batches(whole))
            duplicates = len(messages) - len(whole.messages)
        with in_our_terms():
            for batch, block in written:
                duplicates += await self._send(batch, block)
        return duplicates

    def _are_new(self, ids: list[str]) -> bool:
        different = set(ids)
        return len(different) == len(ids) and not self._known.has_any(different)

    def _fresh(self, messages: Sequence[Message]) -> Batch:
        """Return those of which the stream does not have the id, and each id once."""
        if self._are_new([message.id for message in messages]):
            return Batch(list(messages), range(len(messages)))
        first: dict[str, int] = {}
        for position, message in enumerate(messages):
            if message.id not in self._known:
                first.setdefault(message.id, position)
        positions = list(first.values())
        return Batch([messages[position] for position in positions], positions)

    async def _send(self, batch: Batch, block: Block | None) -> int:
        """Send `batch`; return how many of it the stream had already."""
        duplicates = 0
        if block is None or not await self._send_atomic(batch, block):
            window = 1 if len(batch.messages) <= _FEW else _WINDOW
            duplicates = await self._send_each(batch, window)
        self._known.add([message.id for message in batch.messages])
        return duplicates

    def _taken(self, answer: dict[str, Any], position: int) -> int:
        """Return 1 if the stream had the message already, 0 if it stored it."""
        if "error" in answer:
            self._refused(answer["error"], position)
        if answer.get("duplicate"):
            return 1
        self._stored = answer["seq"]
        return 0

    async def _send_atomic(self, batch: Batch, block: Block) -> bool:
        """Send `batch` whole; return False if the stream knows one of its ids."""
        (answer,) = await self._exchange(block)
        error = answer.get("error")
        if error is None:
            self._stored = answer["seq"]
            return True
        if error["err_code"] in _FULL | _NO_SUCH_STREAM:
            self._refused(error, batch.positions[0])
        # A known id, or whatever else is wrong with one of them: one by one it tells which.
        _log.debug("batch rejected", size=len(batch.messages), error=error)
        return False

    async def _send_each(self, batch: Batch, window: int) -> int:
        """Send messages that are stored or refused alone, so many at once."""
        duplicates = 0
        for part in batch.cut(window):
            answers = await self._exchange(self._block(part.messages))
            for position, answer in zip(part.positions, answers, strict=True):
                duplicates += self._taken(answer, position)
        return duplicates

    def _block(self, messages: list[Message], batch: str | None = None) -> Block:
        prefix = f"{self._inbox}{self._exchanges}."
        self._exchanges += 1
        answers = 1 if batch else len(messages)
        return Block(prefix, answers, self._wire.block(messages, prefix, batch))

    async def _exchange(self, block: Block) -> list[dict[str, Any]]:
        """Send `block`, and return the server's answers: one for each message, or for the batch."""
        client = self._connected()
        answers = self._answers = _Answers(block.answers)
        self._expected = block.prefix
        # The library's own publishing writes the same bytes, at ten times the cost: it checks
        # and encodes each header alone. `tests/contract/test_nats_private.py` holds these two.
        await client._send_command(block.data)  # noqa: SLF001
        await client._flush_pending()  # noqa: SLF001
        await self._unless_lost(answers.complete.wait())
        return [answers.found[str(number)] for number in range(answers.count)]

    async def _answered(self, message: Msg) -> None:
        prefix, _, number = message.subject.rpartition(".")
        if prefix + "." == self._expected:
            answers = self._answers
            answers.found[number] = orjson.loads(message.data or b"{}")
            if message.headers and message.headers.get("Status") == "503":
                answers.found[number] = {"error": _NOBODY}
            if len(answers.found) == answers.count:
                answers.complete.set()

    def _connected(self) -> Client:
        if self._client is None or not self._client.is_connected:
            raise SinkUnavailable("the connection to the NATS server was lost")
        return self._client

    async def _unless_lost(self, waiting: Any) -> Any:
        """Return what `waiting` gives, or fail as soon as the connection is lost."""
        work = asyncio.ensure_future(waiting)
        lost = asyncio.ensure_future(self._lost.wait())
        try:
            await asyncio.wait(
                (work, lost),
                timeout=self._settings.timeout_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if work.done():
                self._timeouts = 0
                return work.result()
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

    def _refused(self, error: dict[str, Any], position: int) -> NoReturn:
        code, text = error["err_code"], error.get("description", "")
        if code in _FULL:
            raise SinkUnavailable(f"the stream {self._settings.stream} is full: {text}")
        if code in _NO_SUCH_STREAM:
            raise SinkFault(f"the stream {self._settings.stream} is gone: {text}")
        if code == _TOO_LARGE or error.get("code") == 400:
            raise MessageRefused(position, f"{text} (JetStream error {code})")
        raise SinkUnavailable(f"JetStream error {code}: {text}")

    async def set_aside(self, message: Message) -> str:
        """See `ports.Sink`: the data goes to an object store beside the stream."""
        jetstream = self._connected().jetstream(timeout=self._settings.timeout_seconds)
        bucket = f"{self._settings.stream}-large"
        with in_our_terms():
            try:
                store = await jetstream.object_store(bucket)
            except nats.js.errors.NotFoundError:
                store = await jetstream.create_object_store(
                    bucket,
                    storage=StorageType.FILE,
                    ttl=self._settings.max_age_seconds,
                    replicas=self._settings.replicas,
                )
            # The library's chunks of 128 KiB may be more than the server takes.
            chunk = min(_CHUNK_BYTES, self._limit - _CHUNK_HEADROOM)
            meta = ObjectMeta(name=message.id, options=ObjectMetaOptions(max_chunk_size=chunk))
            await store.put(message.id, message.data, meta)
        return f"nats:///{bucket}/{message.id}"

    async def close(self) -> None:
        """See `ports.Sink`."""
        client, self._client = self._client, None
        if client is None:
            return
        try:
            await asyncio.wait_for(client.close(), _CLOSE_SECONDS)
        except Exception as error:  # noqa: BLE001  (whatever it is, the client is let go)
            _log.debug("client not closed in order", error=str(error))
