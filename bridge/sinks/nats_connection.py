"""Connects to NATS, and creates the stream as the contract needs it, or verifies the one there."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from bridge import log
from bridge.errors import BridgeError, SinkFault, SinkUnavailable
from bridge.settings import NatsSettings

__all__ = ["Stream", "connect", "in_our_terms", "open_client"]

_log = log.get("nats")
_CONNECT_SECONDS = 5
Callback = Callable[[], Awaitable[None]]


class Stream(NamedTuple):
    """What the server told of the stream."""

    atomic: bool
    """Whether it takes atomic batches."""
    chains: bool
    """Whether a chain that breaks does it no harm: not where it has replicas (decision 15)."""
    limit: int
    """Largest message, headers included."""
    end: int
    """Number of the last message in it."""


async def connect(settings: NatsSettings, subject: str, closed: Callback) -> tuple[Client, Stream]:
    """Return a connection, whose loss is told to `closed`, and the stream that takes `subject`.

    Raises:
        SinkFault: the stream is of other subjects.
        nats.errors.Error, OSError, TimeoutError: as nats-py does; the sink says it in its terms.
    """
    told: list[Exception] = []

    async def failed(error: Exception) -> None:
        told.append(error)
        _log.debug("client error", error=str(error))

    try:
        client = await open_client(settings, closed, failed)
    except nats.errors.NoServersError as error:
        # The library keeps the cause to itself.
        raise (told[-1] if told else error) from None
    try:
        return client, await _ensure_stream(client, settings, subject)
    except BaseException:
        await client.close()
        raise


async def open_client(
    settings: NatsSettings, closed: Callback, failed: Callable[[Exception], Awaitable[None]]
) -> Client:
    """Return a connection that is never made anew by itself. Raises: as `connect`."""
    client = Client()
    try:
        await client.connect(
            list(settings.servers),
            name="factom-bridge",
            allow_reconnect=False,
            # Also for the first connection, where 0 would mean for ever.
            max_reconnect_attempts=1,
            reconnect_time_wait=0.1,
            connect_timeout=_CONNECT_SECONDS,
            pending_size=64 * 1024 * 1024,
            closed_cb=closed,
            disconnected_cb=closed,
            error_cb=failed,
            tls=_tls(settings),
            **_login(settings),
        )
    except BaseException:
        # The library leaves the socket open, to a server that hangs one more with each attempt.
        await client.close()
        raise
    return client


async def _ensure_stream(client: Client, settings: NatsSettings, subject: str) -> Stream:
    jetstream = client.jetstream(timeout=settings.timeout_seconds)
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
    kept = config.storage == StorageType.FILE and config.discard == DiscardPolicy.NEW
    if (config.duplicate_window or 0) < 3600 or not kept:
        _log.warning(
            "stream is weaker than the contract",
            stream=settings.stream,
            duplicate_window=config.duplicate_window,
            discard=str(config.discard),
            storage=str(config.storage),
            remedy="Set file storage, discard new, and a duplicate window of an hour or more.",
        )
    largest = config.max_msg_size or -1
    limit = client.max_payload if largest < 0 else min(client.max_payload, largest)
    alone = (config.num_replicas or 1) == 1
    return Stream(bool(config.allow_atomic), alone, limit, info.state.last_seq)


def _login(settings: NatsSettings) -> dict[str, Any]:
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


def _tls(settings: NatsSettings) -> ssl.SSLContext | None:
    if settings.tls_ca_file is None and settings.tls_cert_file is None:
        return None
    context = ssl.create_default_context(cafile=settings.tls_ca_file)
    if settings.tls_cert_file is not None:
        context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
    return context


@contextmanager
def in_our_terms() -> Iterator[None]:
    """Say in the bridge's terms what nats-py raises.

    What nobody foresaw is a fault of the sink, and not the end of the bridge: the client is made
    anew, and told about. Faults come first: in the library's tree they are errors like a lost
    connection.
    """
    try:
        yield
    except BridgeError:
        raise
    except Exception as error:
        text = str(error) or type(error).__name__
        lowered = text.lower()
        if isinstance(error, nats.errors.AuthorizationError) or "authorization" in lowered:
            raise SinkFault(f"the NATS server refuses the login: {text}") from error
        if "permissions violation" in lowered:
            raise SinkFault(f"the NATS user lacks a right: {text}") from error
        if isinstance(error, nats.js.errors.BadRequestError):
            raise SinkFault(f"JetStream refuses the request: {text}") from error
        if isinstance(error, nats.errors.Error | OSError | TimeoutError):
            raise SinkUnavailable(f"the NATS server is not available: {text}") from error
        raise SinkFault(f"the NATS client failed: {text}") from error
