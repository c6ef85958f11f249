"""`factom-bridge check`: would the bridge work with these settings? Sends no event."""

from __future__ import annotations

from rich.console import Console

from bridge.app import build_sinks, routes_of
from bridge.errors import BridgeError
from bridge.model import Kind
from bridge.settings import Settings

__all__ = ["check_brokers"]


async def check_brokers(settings: Settings, out: Console) -> None:
    """Open each configured sink and say what was found.

    Topics and the stream are created where they are missing, as at a start.

    Raises:
        BridgeError: of the first sink that does not fit.
    """
    out.print("settings: valid")
    routes = routes_of(settings)
    sinks = build_sinks(settings, routes, "check")
    if not sinks:
        out.print("sinks: none configured, the embedded NATS server will be started")
    failure: BridgeError | None = None
    for sink in sinks:
        try:
            await sink.open()
            limits = [sink.limit(kind) for kind in Kind if kind not in routes.off]
            out.print(f"{sink.name}: reachable, topics fit, messages up to {min(limits)} bytes")
        except BridgeError as error:
            out.print(f"{sink.name}: {error}", markup=False)
            failure = failure or error
        finally:
            await sink.close()
    if failure is not None:
        raise failure
