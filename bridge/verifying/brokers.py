"""Which brokers there are to be read: those of the settings, or the embedded one."""

from __future__ import annotations

import json
from contextlib import AbstractAsyncContextManager

from bridge.app import routes_of
from bridge.errors import SinkUnavailable, UsageError
from bridge.settings import Settings
from bridge.verifying.kafka import open_topics
from bridge.verifying.nats import open_stream
from bridge.verifying.source import Source

__all__ = ["brokers"]


def brokers(
    settings: Settings, only: str | None = None
) -> dict[str, AbstractAsyncContextManager[Source]]:
    """Return by name what opens each broker, or `only` that one.

    Raises:
        UsageError: the settings do not name it.
        SinkUnavailable: no broker is configured, and no embedded one is known.
    """
    routes, found = routes_of(settings), dict[str, AbstractAsyncContextManager[Source]]()
    if settings.kafka.bootstrap_servers:
        found["kafka"] = open_topics(settings.kafka, routes)
    if settings.nats.servers:
        found["nats"] = open_stream(settings.nats, routes)
    elif settings.embeds_nats and only != "kafka":
        servers = (_embedded_url(settings),)
        found["nats"] = open_stream(settings.nats.model_copy(update={"servers": servers}), routes)
    if only is None:
        return found
    if only not in found:
        raise UsageError(f"the settings name no {only}")
    return {only: found[only]}


def _embedded_url(settings: Settings) -> str:
    path = settings.journal.dir / "ports.json"
    try:
        port: int = json.loads(path.read_text(encoding="utf-8"))["nats"]
    except (OSError, ValueError, KeyError) as error:
        raise SinkUnavailable(
            f"no broker is configured, and no bridge with an embedded one is known from {path}"
        ) from error
    return f"nats://{settings.embedded.host}:{port}"
