"""NATS JetStream, through nats-py.

A batch goes out as one atomic batch (server 2.12 and newer): one acknowledgement and one sync for
up to 1,000 messages, all stored or none, which is also what keeps the order. The server rejects a
batch that holds an id it knows already; then the halves are tried, down to the single message,
whose duplicate is a success. Ids acknowledged lately are kept, so that a block which a node sends
again costs nothing. An older server gets a counted window instead.

The client is never left to reconnect by itself: its futures do not resolve after a disconnect.
A lost connection fails the batch; the lane opens the sink anew and sends it again.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NoReturn
from urllib.parse import quote

import nats
import nats.errors
import nats.js.errors
import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from bridge import log
from bridge.core.routing import Routes
from bridge.errors import MessageRefused, SinkFault, SinkUnavailable
from bridge.model import Kind, Layout, Message
from bridge.settings import NatsSettings

__all__ = ["NatsSink"]

_log = log.get("nats")

_BATCH_MESSAGES = 1_000
"""Most that an atomic batch may hold (server error 10199)."""

_BATCH_BYTES = 8 * 1024 * 1024
_WINDOW = 256
_KNOWN_IDS = 50_000
_CLOSE_SECONDS = 2
_MOST_LAYOUTS = 1_000

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
        self._jetstream: JetStreamContext | None = None
        self._lost = asyncio.Event()
        self._limit = 0
        self._atomic = False
        self._batches = 0
        self._known: OrderedDict[str, None] = OrderedDict()
        self._templates: dict[Layout, str] = {}
        self._inbox = ""
        self._exchanges = 0
        self._expected = ""
        self._answers = _Answers(0)

    def limit(self, kind: Kind) -> int:
        """See `ports.Sink`: one limit for all kinds, the server's or the stream's."""
        return self._limit

    async def open(self) -> None:
        """See `ports.Sink`."""
        settings = self._settings
        self._known.clear()
        self._lost = lost = asyncio.Event()

        async def closed() -> None:
            lost.set()

        async def failed(error: Exception) -> None:
            _log.debug("client error", error=str(error))

        try:
            client: Client = await asyncio.wait_for(
                nats.connect(
                    list(settings.servers),
                    name="factom-bridge",
                    allow_reconnect=False,
                    connect_timeout=5,
                    pending_size=64 * 1024 * 1024,
                    closed_cb=closed,
                    disconnected_cb=closed,
                    error_cb=failed,
                    tls=self._tls(),
                    **self._login(),
                ),
                settings.timeout_seconds,
            )
            self._client = client
            self._jetstream = client.jetstream(timeout=settings.timeout_seconds)
            await self._ensure_stream(client, self._jetstream)
            self._inbox = client.new_inbox() + "."
            await client.subscribe(f"{self._inbox}*.*", cb=self._answered)
        except (nats.errors.Error, OSError, TimeoutError, ValueError) as error:
            _map(error)

    async def _ensure_stream(self, client: Client, jetstream: JetStreamContext) -> None:
        settings, subject = self._settings, f"{self._routes.prefix}.>"
        try:
            info = await jetstream.stream_info(settings.stream)
        except nats.js.errors.NotFoundError:
            info = await jetstream.add_stream(
                StreamConfig(
                    name=settings.stream,
                    description="The Factom live feed, published by factom-bridge",
                    subjects=[subject],
                    retention=RetentionPolicy.LIMITS,
                    storage=StorageType.FILE,
                    discard=DiscardPolicy.NEW,
                    max_age=settings.max_age_seconds,
                    max_bytes=settings.max_bytes,
                    num_replicas=settings.replicas,
                    duplicate_window=settings.duplicate_window_seconds,
                    allow_direct=True,
                    allow_atomic=True,
                )
            )
            _log.info("stream made", stream=settings.stream, subjects=subject)
        config = info.config
        if subject not in (config.subjects or []):
            raise SinkFault(
                f"the stream {settings.stream} has the subjects {config.subjects}, not {subject}"
            )
        if (config.duplicate_window or 0) < 3600 or config.discard != DiscardPolicy.NEW:
            _log.warning(
                "stream is weaker than the contract",
                stream=settings.stream,
                duplicate_window=config.duplicate_window,
                discard=str(config.discard),
                remedy="Set a duplicate window of an hour or more, and discard new.",
            )
        self._atomic = bool(config.allow_atomic)
        largest = config.max_msg_size or -1
        self._limit = client.max_payload if largest < 0 else min(client.max_payload, largest)

    def _login(self) -> dict[str, Any]:
        settings = self._settings
        login: dict[str, Any] = {}
        if settings.user is not None:
            login["user"] = settings.user
        for name, secret in (("password", settings.password), ("token", settings.token)):
            if secret is not None:
                login[name] = secret.get_secret_value()
        if settings.nkey_seed is not None:
            login["nkeys_seed_str"] = settings.nkey_seed.get_secret_value()
        if settings.credentials_file is not None:
            login["user_credentials"] = str(settings.credentials_file)
        return login

    def _tls(self) -> ssl.SSLContext | None:
        settings = self._settings
        if settings.tls_ca_file is None and settings.tls_cert_file is None:
            return None
        context = ssl.create_default_context(cafile=settings.tls_ca_file)
        if settings.tls_cert_file is not None:
            context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
        return context

    async def publish(self, messages: Sequence[Message]) -> int:
        """See `ports.Sink`."""
        fresh: list[tuple[int, Message]] = []
        ids: set[str] = set()
        for position, message in enumerate(messages):
            if message.id not in ids and message.id not in self._known:
                ids.add(message.id)
                fresh.append((position, message))
        duplicates = len(messages) - len(fresh)
        try:
            for batch in _batches(fresh):
                duplicates += await self._send(batch)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            _map(error)
        return duplicates

    async def _send(self, batch: list[tuple[int, Message]]) -> int:
        """Send `batch`; return how many of it the stream had already."""
        if len(batch) == 1:
            duplicates = await self._send_one(*batch[0])
        elif not self._atomic:
            duplicates = await self._send_window(batch)
        elif await self._send_atomic(batch):
            duplicates = 0
        else:
            half = len(batch) // 2
            return await self._send(batch[:half]) + await self._send(batch[half:])
        known = self._known
        for _, message in batch:
            known[message.id] = None
        while len(known) > _KNOWN_IDS:
            known.popitem(last=False)
        return duplicates

    async def _send_one(self, position: int, message: Message) -> int:
        answers = await self._exchange([(position, message)])
        if "error" in answers[0]:
            self._refused(answers[0]["error"], position)
        return int(bool(answers[0].get("duplicate")))

    async def _send_atomic(self, batch: list[tuple[int, Message]]) -> bool:
        """Send `batch` whole; return False if the stream knows one of its ids."""
        self._batches += 1
        answer = (await self._exchange(batch, f"{self._epoch}-{self._batches}"))[0]
        error = answer.get("error")
        if error is None:
            return True
        if error["err_code"] in _FULL | _NO_SUCH_STREAM:
            self._refused(error, batch[0][0])
        # Known ids, and whatever else is wrong with one of them: the halves tell which.
        _log.debug("batch rejected", size=len(batch), error=error)
        return False

    async def _send_window(self, batch: list[tuple[int, Message]]) -> int:
        duplicates = 0
        for start in range(0, len(batch), _WINDOW):
            part = batch[start : start + _WINDOW]
            for (position, _), answer in zip(part, await self._exchange(part), strict=True):
                if "error" in answer:
                    self._refused(answer["error"], position)
                duplicates += bool(answer.get("duplicate"))
        return duplicates

    async def _exchange(
        self, items: list[tuple[int, Message]], batch: str | None = None
    ) -> list[dict[str, Any]]:
        """Send `items` at once, and return the server's answers: one for each, or for the batch."""
        client = self._client
        if client is None or not client.is_connected:
            raise SinkUnavailable("the connection to the NATS server was lost")
        answers = self._answers = _Answers(1 if batch else len(items))
        prefix = f"{self._inbox}{self._exchanges}."
        self._exchanges += 1
        self._expected = prefix
        block: list[bytes] = []
        last = len(items)
        for number, (_, message) in enumerate(items, 1):
            data = message.data
            head = self._head(message)
            reply = f"{prefix}{number - 1}"
            if batch is not None:
                head += f"Nats-Batch-Id: {batch}\r\nNats-Batch-Sequence: {number}\r\n"
                if number == last:
                    head += "Nats-Batch-Commit: 1\r\n"
                    reply = f"{prefix}0"
                else:
                    reply = ""
            size = len(head) + 2
            subject = self._routes.subject(message)
            start = f"HPUB {subject} {reply} {size} {size + len(data)}\r\n{head}\r\n"
            block += (start.encode(), data, b"\r\n")
        # The library's own publishing writes the same bytes, at ten times the cost: it checks
        # and encodes each header alone. `tests/contract/test_nats_private.py` holds these two.
        await client._send_command(b"".join(block))  # noqa: SLF001
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
                return work.result()
            if lost.done():
                raise SinkUnavailable("the connection to the NATS server was lost")
            raise SinkUnavailable("the NATS server did not acknowledge in time")
        finally:
            work.cancel()
            lost.cancel()
            await asyncio.gather(work, lost, return_exceptions=True)

    def _refused(self, error: dict[str, Any], position: int) -> NoReturn:
        code, text = error["err_code"], error.get("description", "")
        if code in _FULL:
            raise SinkUnavailable(f"the stream {self._settings.stream} is full: {text}")
        if code in _NO_SUCH_STREAM:
            raise SinkFault(f"the stream {self._settings.stream} is gone: {text}")
        if code == _TOO_LARGE or error.get("code") == 400:
            raise MessageRefused(position, f"{text} (JetStream error {code})")
        raise SinkUnavailable(f"JetStream error {code}: {text}")

    def _head(self, message: Message) -> str:
        """Return the headers of `message`, each line ended."""
        template = self._templates.get(message.layout)
        if template is None:
            template = self._template(message.layout)
        return template % (message.id, message.seq, *message.values)

    def _template(self, layout: Layout) -> str:
        constant = {f"ce-{name}": _encoded(value) for name, value in layout.constants}
        constant["Nats-Expected-Stream"] = self._settings.stream
        constant["bridge-epoch"] = self._epoch
        lines = [f"{name}: {value}".replace("%", "%%") for name, value in constant.items()]
        # Hashes, numbers, names and times: none of the values needs the binding's encoding.
        lines += ["Nats-Msg-Id: %s", "bridge-seq: %d"]
        lines += [f"ce-{name}: %s" for name in layout.names]
        template = "\r\n".join(("NATS/1.0", *lines, ""))
        if len(self._templates) < _MOST_LAYOUTS:
            self._templates[layout] = template
        return template

    async def set_aside(self, message: Message) -> str:
        """See `ports.Sink`: the data goes to an object store beside the stream."""
        jetstream = self._jetstream
        assert jetstream is not None
        bucket = f"{self._settings.stream.replace('.', '_')}-large"
        try:
            try:
                store = await jetstream.object_store(bucket)
            except nats.js.errors.NotFoundError:
                store = await jetstream.create_object_store(
                    bucket,
                    storage=StorageType.FILE,
                    ttl=self._settings.max_age_seconds,
                    replicas=self._settings.replicas,
                )
            await store.put(message.id, message.data)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            _map(error)
        return f"nats:///{bucket}/{message.id}"

    async def close(self) -> None:
        """See `ports.Sink`."""
        client, self._client, self._jetstream = self._client, None, None
        if client is None:
            return
        try:
            await asyncio.wait_for(client.close(), _CLOSE_SECONDS)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            _log.debug("client not closed in order", error=str(error))


def _batches(messages: list[tuple[int, Message]]) -> list[list[tuple[int, Message]]]:
    batches: list[list[tuple[int, Message]]] = []
    size = _BATCH_BYTES
    for item in messages:
        if size >= _BATCH_BYTES or len(batches[-1]) >= _BATCH_MESSAGES:
            batches.append([])
            size = 0
        batches[-1].append(item)
        size += len(item[1].data)
    return batches


def _encoded(value: str) -> str:
    """Percent-encode `value` as the NATS binding says: space, quote, percent, and non-ASCII."""
    return quote(value, safe="!#$&'()*+,-./:;<=>?@[\\]^_`{|}~")


def _map(error: Exception) -> NoReturn:
    """Say in the bridge's terms what nats-py raised.

    Refusals come first: in the library's tree they are errors like a lost connection.
    """
    if isinstance(error, nats.errors.MaxPayloadError):
        raise SinkUnavailable("the server's max_payload was lowered; it is read anew") from error
    text = str(error) or type(error).__name__
    lowered = text.lower()
    if isinstance(error, nats.errors.AuthorizationError) or "authorization" in lowered:
        raise SinkFault(f"the NATS server refuses the login: {text}") from error
    if "permissions violation" in lowered:
        raise SinkFault(f"the NATS user lacks a right: {text}") from error
    if isinstance(error, nats.js.errors.BadRequestError):
        raise SinkFault(f"JetStream refuses the request: {text}") from error
    if isinstance(error, nats.errors.NoRespondersError | nats.js.errors.NoStreamResponseError):
        raise SinkUnavailable("JetStream does not answer on this server") from error
    raise SinkUnavailable(f"the NATS server is not available: {text}") from error
