"""NATS JetStream, through nats-py.

Messages go in chains, in which each names the id of the one that it is to stand behind, or as atomic
batches of up to 1,000 (server 2.12 and newer), whichever is faster with this server (`core.ways`).
Either is stored in order, or rejected, and acknowledged once; and chains can be sent on while those
before are being stored (docs/decisions/0015). What is rejected, because an id is known already or a
message is refused, is sent again in a counted window, where a duplicate is a success. Ids
acknowledged lately are kept, so that a block which a node sends again costs nothing.

The client is never left to reconnect by itself: its futures do not resolve after a disconnect.
A lost connection fails the batch; the lane opens the sink anew and sends it again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

import nats.js.errors
from nats.js.api import ObjectMeta, ObjectMetaOptions, StorageType

from bridge import log
from bridge.core.natswire import NatsWire, after
from bridge.core.recent import Recent
from bridge.core.routing import Routes
from bridge.core.ways import FEW, MOST, Ways
from bridge.errors import MessageRefused, SinkFault, SinkUnavailable
from bridge.model import Kind, Message, Standing, Tail
from bridge.settings import NatsSettings
from bridge.sinks.nats_batch import Batch, Listed, Sent, Tip, first_of, fresh_of
from bridge.sinks.nats_connection import connect, in_our_terms
from bridge.sinks.nats_exchange import Answer, Exchanges

__all__ = ["NatsSink"]

_log = log.get("nats")

_WINDOW = 256
_AHEAD = 4
"""Batches of one list that are sent ahead: the server queues 10,000 messages for a stream."""
_KNOWN_IDS = 25_000
_CHUNK_BYTES, _CHUNK_HEADROOM = 128 * 1024, 1_024
_AUDIT_SECONDS = 60
"""How often it is asked, while idle, whether it still holds what it acknowledged."""
_CLOSE_SECONDS = 2

# Codes of the server's errors (nats-server 2.12, `server/errors.json`).
_TOO_LARGE = 10054
_NO_SUCH_STREAM = {10059, 10060}
_FULL = {10023, 10047, 10077}


_ANYWHERE = Tip("", 0)


class NatsSink:
    """See `ports.Sink`. `epoch` is the journal's."""

    name = "nats"

    def __init__(self, settings: NatsSettings, routes: Routes, epoch: str) -> None:
        self._settings = settings
        self._routes = routes
        self._epoch = epoch
        self._exchanges = Exchanges(settings.timeout_seconds)
        self._lost = asyncio.Event()
        self._limit = 0
        self._has_atomic = False
        self._batches = 0
        self._known = Recent(_KNOWN_IDS)
        self._wire = NatsWire(settings.stream, routes, epoch)
        self._stored = 0
        self._end = 0
        """Number of the last message in the stream, as far as the server told."""
        self._tip: Tip | None = None
        """The last message of all that was prepared or published; None: nothing may be sent behind it."""
        self._is_sure = False
        """Whether the stream ends with what was stored last: what broke may have left messages there, and
        behind one of those a chain would go on though one in front of it is missing."""
        self._sending = asyncio.Lock()
        self._prepared: deque[Listed] = deque()
        self._ways = Ways(has_atomic=False, has_chains=False)

    def limit(self, kind: Kind) -> int:
        """See `ports.Sink`: one limit for all kinds, the server's or the stream's."""
        return self._limit

    async def open(self) -> None:
        """See `ports.Sink`."""
        settings = self._settings
        self._prepared.clear()
        self._tip, self._is_sure = None, False
        self._lost = lost = asyncio.Event()

        async def closed() -> None:
            lost.set()

        with in_our_terms():
            client, stream = await asyncio.wait_for(
                connect(settings, f"{self._routes.prefix}.>", closed), settings.timeout_seconds
            )
            self._has_atomic, has_chains, self._limit, self._end = stream
            self._ways = Ways(has_atomic=self._has_atomic, has_chains=has_chains)
            await self._exchanges.begin(client, lost)

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
            jetstream = self._exchanges.client.jetstream(timeout=self._settings.timeout_seconds)
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
                jetstream = self._exchanges.client.jetstream(timeout=self._settings.timeout_seconds)
                state = (await jetstream.stream_info(self._settings.stream)).state
            if state.last_seq < self._stored:
                raise SinkUnavailable("the stream has lost what it had acknowledged")

    async def prepare(self, messages: Sequence[Message]) -> None:
        """See `ports.Sink`: it is sent, for the stream knows none of the messages as a rule."""
        if messages:
            listed = Listed(messages)
            self._prepared.append(listed)
            with in_our_terms():
                async with self._sending:
                    await self._send_ahead(listed)

    async def publish(self, messages: Sequence[Message]) -> int:
        """See `ports.Sink`."""
        listed = Listed(messages)
        if self._prepared and self._prepared[0].messages is messages:
            listed = self._prepared.popleft()
        else:
            # Nobody knew of it, so that nothing may be sent until it is.
            self._tip = None
        with in_our_terms():
            duplicates = await self._taken(listed)
            while listed.rest.messages:
                # All before it is stored.
                duplicates += await self._try_out(listed)
                await self._send_on(listed)
                if not listed.sent:
                    duplicates += await self._send(listed.take(len(listed.rest.messages)))
                duplicates += await self._taken(listed)
        self._ways.sent()
        return duplicates

    async def _try_out(self, listed: Listed) -> int:
        """See which way is faster, if it is time; return how many the stream had already."""
        count, took = self._ways.trial(len(listed.rest.messages)), list[float]()
        if not count or not self._is_sure or not self._are_new(listed.rest.messages):
            return 0
        self._tip = None
        for most, send in ((count, self._send_chain), (MOST, self._send_atomic)):
            batch, began = listed.take(most), time.monotonic()
            if not await self._is_stored(await send(batch)):
                return await self._send(batch)
            took.append((time.monotonic() - began) / len(batch.messages))
        self._ways.tried(*took)
        return 0

    async def _send_on(self, listed: Listed) -> None:
        """Send `listed`, before which all is stored, and what is prepared and waits behind it."""
        async with self._sending:
            self._tip = Tip("", self._end)
            for each in (listed, *self._prepared):
                if each is not listed and each.sent:
                    # It was sent behind something that broke, and is to be sent again.
                    self._tip = None
                await self._send_ahead(each)

    async def _send_ahead(self, listed: Listed) -> None:
        """Send of it what can only get behind all that was sent before; nothing where that waits."""
        is_chain = self._is_sure and self._ways.is_chain(len(listed.rest.messages))
        if is_chain and self._tip is not None and self._are_new(listed.rest.messages):
            while self._tip is not None and listed.rest.messages and len(listed.sent) < _AHEAD:
                batch, tip = listed.take(MOST), self._tip
                self._tip = tip.behind(batch)
                listed.sent.append(await self._send_chain(batch, tip))
        if listed.rest.messages:
            self._tip = None

    async def _send_chain(self, batch: Batch, tip: Tip = _ANYWHERE) -> Sent:
        exchange = self._exchanges.new(1)
        behind = after(*tip) if tip.id else ""
        await self._exchanges.send(self._wire.block(batch.messages, exchange, None, behind))
        return Sent(batch, exchange, is_atomic=False)

    async def _send_atomic(self, batch: Batch) -> Sent:
        exchange = self._exchanges.new(1)
        self._batches += 1
        name = f"{self._epoch}-{self._batches}"
        await self._exchanges.send(self._wire.block(batch.messages, exchange, name))
        return Sent(batch, exchange, is_atomic=True)

    async def _taken(self, listed: Listed) -> int:
        """Return when all that is sent is stored, and how many of it the stream had already."""
        duplicates = 0
        sent, listed.sent = listed.sent, []
        for each in sent:
            if not await self._is_stored(each):
                # What was sent behind it is not stored either.
                self._tip = None
                duplicates += await self._send(each.batch)
        return duplicates

    async def _is_stored(self, sent: Sent) -> bool:
        """Say whether all of a batch is stored now; or it was rejected, if only in part."""
        (answer,) = await self._exchanges.answers(sent.exchange)
        error = answer.get("error")
        count = len(sent.batch.messages)
        # A chain passes over what is there already, and over more than that if others write too.
        is_new = not answer.get("duplicate") and answer.get("seq") == self._end + count
        if error is None and (sent.is_atomic or is_new):
            self._stored = self._end = answer["seq"]
            self._known.add([message.id for message in sent.batch.messages])
            return True
        if error is not None and error["err_code"] in _FULL | _NO_SUCH_STREAM:
            self._refused(error, sent.batch.positions[0])
        _log.debug("batch rejected", size=len(sent.batch.messages), answer=answer)
        return False

    async def _send(self, whole: Batch) -> int:
        """Send what can go no other way; return how many of it the stream had already.

        Where one id is known, or whatever else is wrong with a message, one by one it tells which.
        """
        batch = whole if self._are_new(whole.messages) else fresh_of(whole, self._known)
        duplicates = len(whole.messages) - len(batch.messages)
        self._is_sure = self._is_sure or bool(batch.messages)
        while batch.messages:
            part = first_of(batch, MOST)
            batch = batch.slice(len(part.messages), len(batch.messages))
            is_atomic = self._has_atomic and len(part.messages) > FEW
            if not is_atomic or not await self._is_stored(await self._send_atomic(part)):
                duplicates += await self._send_each(part)
        return duplicates

    async def _send_each(self, batch: Batch) -> int:
        """Send messages that are stored or refused alone."""
        duplicates, end = 0, self._end
        for part in batch.cut(1 if len(batch.messages) <= FEW else _WINDOW):
            exchange = self._exchanges.new(len(part.messages))
            await self._exchanges.send(self._wire.block(part.messages, exchange))
            answers = await self._exchanges.answers(exchange)
            for position, answer in zip(part.positions, answers, strict=True):
                duplicates += self._is_duplicate(answer, position, end)
        self._known.add([message.id for message in batch.messages])
        return duplicates

    def _is_duplicate(self, answer: Answer, position: int, end: int) -> bool:
        """Say whether the stream had the message already, up to its `end`, or else stored it."""
        if "error" in answer:
            self._refused(answer["error"], position)
        if answer.get("duplicate"):
            self._is_sure = False
            # What the chain has stored that broke is no duplicate.
            return bool(answer["seq"] <= end)
        self._stored = self._end = answer["seq"]
        return False

    def _are_new(self, messages: Sequence[Message]) -> bool:
        different = {message.id for message in messages}
        return len(different) == len(messages) and not self._known.has_any(different)

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
        jetstream = self._exchanges.client.jetstream(timeout=self._settings.timeout_seconds)
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
        client = self._exchanges.end()
        if client is None:
            return
        try:
            await asyncio.wait_for(client.close(), _CLOSE_SECONDS)
        except Exception as error:  # noqa: BLE001  (whatever it is, the client is let go)
            _log.debug("client not closed in order", error=str(error))
