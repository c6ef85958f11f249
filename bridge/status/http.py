"""The status server: `/healthz` the process alone, `/readyz` each part, `/metrics` for Prometheus.

`/healthz` never fails for a broker: a supervisor that restarts the bridge because Kafka is away
would only make it worse. `/readyz` tells the truth: 503 unless every part works.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.typedefs import Middleware
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from bridge import __version__
from bridge.errors import PortInUse
from bridge.health import Health
from bridge.metrics import Metrics
from bridge.settings import StatusSettings
from bridge.status.limits import Connections

__all__ = ["open_status"]

_HEAD_BYTES, _HEADERS = 8_192, 64
_BODY_BYTES = 1_024
_LOCAL_HOSTS = {"127.0.0.1", "localhost", "[::1]"}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Pages:
    def __init__(self, health: Health, metrics: Metrics) -> None:
        self._health = health
        self._metrics = metrics

    async def healthz(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "alive", "version": __version__})

    async def readyz(self, _request: web.Request) -> web.Response:
        ready = self._health.ready
        parts = {name: part._asdict() for name, part in self._health.parts.items()}
        return web.json_response({"ready": ready, "parts": parts}, status=200 if ready else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        registry = self._metrics.registry
        names = request.query.getall("name[]", [])
        # As the other exporters of the library do: whoever asks often asks for little.
        text = generate_latest(registry.restricted_registry(names) if names else registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})


def _guard(settings: StatusSettings, connections: Connections) -> Middleware:
    token = settings.token.get_secret_value() if settings.token else None

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if token is not None:
            given = request.headers.get("Authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode()):
                connections.refused("status-unauthorized")
                raise web.HTTPUnauthorized(text="a bearer token is needed\n")
        elif (
            request.host.rpartition(":")[0] not in _LOCAL_HOSTS and request.host not in _LOCAL_HOSTS
        ):
            # A page of another site, led here by its name server, must read nothing.
            connections.refused("status-foreign-host")
            raise web.HTTPForbidden(text="this host name is not served\n")
        return await handler(request)

    return guard


def _timed(connections: Connections) -> Middleware:
    """Say when a request came whole. One with a body is timed to its answer's end."""

    @web.middleware
    async def timed(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.body_exists:
            connections.answering(request.transport)
        try:
            return await handler(request)
        finally:
            connections.answered(request.transport)

    return timed


@asynccontextmanager
async def open_status(
    settings: StatusSettings,
    health: Health,
    metrics: Metrics,
    routes: Sequence[Callable[[web.Application], None]] = (),
) -> AsyncIterator[int]:
    """Serve, and yield the port. Each of `routes` adds pages; the guard and the bounds are theirs.

    Raises:
        PortInUse: the address cannot be bound.
    """
    pages = _Pages(health, metrics)
    connections = Connections(settings, metrics)
    app = web.Application(
        middlewares=[_timed(connections), _guard(settings, connections)],
        client_max_size=_BODY_BYTES,
    )
    app.router.add_get("/healthz", pages.healthz)
    app.router.add_get("/readyz", pages.readyz)
    app.router.add_get("/metrics", pages.metrics)
    for add in routes:
        add(app)
    runner = web.AppRunner(
        app,
        access_log=None,
        shutdown_timeout=1,
        lingering_time=0,
        auto_decompress=False,
        max_line_size=_HEAD_BYTES,
        max_field_size=_HEAD_BYTES,
        max_headers=_HEADERS,
    )
    await runner.setup()
    assert runner.server is not None
    loop = asyncio.get_running_loop()
    try:
        try:
            server = await loop.create_server(
                connections.factory(runner.server), settings.host, settings.port
            )
        except OSError as error:
            raise PortInUse(
                f"cannot serve the status on {settings.host}:{settings.port}"
                f" (BRIDGE_STATUS__PORT): {error.strerror or error}"
            ) from error
        watching = asyncio.create_task(connections.watch())
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            watching.cancel()
    finally:
        await runner.cleanup()
