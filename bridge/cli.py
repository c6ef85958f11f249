"""The command line. Only this module reads the environment and chooses exit codes."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
import uvloop
from rich.console import Console
from rich.table import Table

from bridge import __version__, log
from bridge.allocator import keep_memory
from bridge.app import routes_of, serve
from bridge.asking import backfill_shown, explain_shown, gaps_shown
from bridge.check import check_brokers
from bridge.core.asyncapi import document
from bridge.demo import show
from bridge.emitter import simulation
from bridge.environment import effective, load
from bridge.errors import BridgeError, UsageError
from bridge.recording import (
    Address,
    Faults,
    Transport,
    parse_speed,
    play_shown,
    record_shown,
)
from bridge.settings import Settings
from bridge.verifying import verify_published

__all__ = ["main"]

_err = Console(file=log.STDERR, highlight=False, soft_wrap=True)
_out = Console(highlight=False, soft_wrap=True)

_HIGHEST = 2**32 - 1

app = typer.Typer(
    name="factom-bridge",
    help="Receives a Factom node's Live Feed and republishes it onto Kafka or NATS JetStream.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command, and end with the exit code of the contract."""
    try:
        code = app(standalone_mode=False)
    except BridgeError as error:
        _err.print(f"[bold red]factom-bridge:[/] {_escaped(str(error))}")
        _err.print(f"  {_escaped(error.remedy)}")
        code = error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except typer.TyperException as error:
        error.show()  # type: ignore[attr-defined]
        code = UsageError.exit_code
    except Exception:  # noqa: BLE001  (whatever else arrives here is a bug, and is shown whole)
        _err.print_exception()
        code = BridgeError.exit_code
    log.end()
    sys.exit(code or 0)


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")


def _settings() -> Settings:
    settings = load(os.environ)
    log.configure(settings.log.level, settings.log.format)
    return settings


def _run_until_stopped(work: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run `work` with an event that the first SIGTERM or SIGINT sets; a second one ends at once."""

    async def run() -> None:
        stop = asyncio.Event()

        def stopping() -> None:
            if stop.is_set():
                os._exit(130)
            stop.set()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping)
        await work(stop)

    # Millions of short-lived tuples and no cycles among them: the collector's default of every
    # 700 costs a tenth of the time and finds nothing.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    keep_memory()
    uvloop.run(run())


@app.command()
def run() -> None:
    """Receive the feed and publish it, until SIGTERM."""
    settings = _settings()
    _run_until_stopped(lambda stop: serve(settings, stop))


@app.command()
def settings() -> None:
    """Print the settings in force, secrets masked."""
    table = Table("variable", "value", box=None, pad_edge=False)
    for name, value in effective(load(os.environ)).items():
        table.add_row(name, value, style=None if name in os.environ else "dim")
    _out.print(table)


@app.command()
def check() -> None:
    """Check the settings, that the brokers answer, and that topics and stream fit.

    Topics and a stream that are missing are made, as at a start. No event is sent.
    """
    chosen = _settings()
    asyncio.run(check_brokers(chosen, _out))


@app.command()
def asyncapi() -> None:
    """Print the AsyncAPI 3 document of what is published with these settings, as JSON."""
    chosen = load(os.environ)
    described = document(routes_of(chosen), __version__, chosen.format, chosen.json_bytes)
    sys.stdout.write(json.dumps(described, indent=2) + "\n")


@app.command()
def verify(
    first: Annotated[
        int | None, typer.Option("--from", min=0, max=_HIGHEST, help="Lowest height.")
    ] = None,
    last: Annotated[
        int | None, typer.Option("--to", min=0, max=_HIGHEST, help="Highest height.")
    ] = None,
    sink: Annotated[
        Literal["nats", "kafka"] | None, typer.Option(help="Which broker; else each there is.")
    ] = None,
) -> None:
    """Read back what was published, and prove that it is complete: exit 1 with a list if not."""
    if not asyncio.run(verify_published(_settings(), first, last, sink, _out, _err)):
        raise typer.Exit(1)


@app.command()
def gaps(
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Anew each second, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, all of it.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 if heights are missing.")] = False,
) -> None:
    """Show which heights are missing, why, and what the running bridge does about it."""
    code = gaps_shown(load(os.environ), _out, _err, watch=watch, as_json=as_json, check=check)
    raise typer.Exit(code)


@app.command()
def backfill(
    first: Annotated[int, typer.Argument(metavar="FROM", min=0, max=_HIGHEST)],
    last: Annotated[int, typer.Argument(metavar="TO", min=0, max=_HIGHEST)],
) -> None:
    """Have the running bridge fetch the heights FROM to TO, and follow until they are there."""
    raise typer.Exit(backfill_shown(load(os.environ), first, last, _out, _err))


@app.command()
def explain(
    what: Annotated[str, typer.Argument(metavar="HASH|HEIGHT")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, all of it.")] = False,
    whole: Annotated[
        bool, typer.Option("--whole", help="Read the brokers from beginning to end.")
    ] = False,
) -> None:
    """Tell what arrived of a hash or a height, from whom, where it went, and what is missing."""
    done = explain_shown(_settings(), what, _out, _err, as_json=as_json, whole=whole)
    raise typer.Exit(asyncio.run(done))


@app.command()
def emit(
    *,
    to: Annotated[str, typer.Option(help="HOST:PORT of the receiver.")],
    blocks: Annotated[int | None, typer.Option(min=0, help="How many; else until SIGTERM.")] = None,
    block_seconds: Annotated[
        float, typer.Option(min=0, help="Pace: 600 is real time, 0 as fast as possible.")
    ] = 600,
    first: Annotated[int, typer.Option(min=0, max=2**31, help="Height of the first block.")] = 0,
    chains: Annotated[int, typer.Option(min=0, help="New chains in each block.")] = 1,
    entries: Annotated[int, typer.Option(min=0, help="Entries in each block.")] = 10,
    largest: Annotated[int, typer.Option(min=0, max=10_000, help="Bytes of an entry.")] = 1024,
    seed: Annotated[int, typer.Option(help="The same seed grows the same chain.")] = 0,
    api_port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Serve the node's API; 0: a free port.")
    ] = None,
    stay: Annotated[bool, typer.Option("--stay", help="Serve on after the last block.")] = False,
    give_up: Annotated[
        bool, typer.Option("--give-up", help="Exit 69 at the first failure.")
    ] = False,
    feed: Annotated[list[str] | None, typer.Option(help="As in factomd.conf: NAME=VALUE.")] = None,
    fault: Annotated[list[str] | None, typer.Option(help="drop=PERCENT,lose=HEIGHT, ...")] = None,
) -> None:
    """Simulate a node: grow a chain, and send its events to a receiver."""
    log.configure("error", "auto")
    node = simulation.Simulation(
        simulation.feed_config(*Address.parse(to), feed or ()),
        seed=seed,
        first=first,
        blocks=blocks,
        block_seconds=block_seconds,
        load=simulation.Load(chains, entries, largest=largest),
        faults=simulation.Faults.parse(*fault or ()),
        api_port=api_port,
        stays=stay,
        gives_up=give_up,
    )

    async def work(stop: asyncio.Event) -> None:
        if not await simulation.run(node, stop, _out):
            raise typer.Exit(69)

    _run_until_stopped(work)


@app.command()
def demo(
    seconds: Annotated[float, typer.Option(min=4, help="How long it takes.")] = 20,
) -> None:
    """Play a recorded feed through a bridge with an embedded NATS server, and show it."""
    log.configure("error", "auto")
    if not uvloop.run(show(seconds, _out)):
        raise typer.Exit(70)


@app.command()
def health(
    *,
    ready: Annotated[bool, typer.Option(help="Ask for /readyz instead of /healthz.")] = False,
) -> None:
    """Ask the running bridge how it is: exit 0 if well, 69 if not. For health checks."""
    chosen = load(os.environ)
    port = chosen.status.port or _port_in_use(chosen.journal.dir / "ports.json")
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(chosen.status.host, chosen.status.host)  # noqa: S104
    request = urllib.request.Request(f"http://{host}:{port}/{'readyz' if ready else 'healthz'}")
    if chosen.status.token:
        request.add_header("Authorization", f"Bearer {chosen.status.token.get_secret_value()}")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=3) as answer:
            _out.print(answer.read().decode())
    except urllib.error.HTTPError as error:
        _out.print(_escaped(error.read().decode()))
        raise typer.Exit(69) from None
    except OSError as error:
        _err.print(f"no bridge answers on {host}:{port}: {error}")
        raise typer.Exit(69) from None


def _port_in_use(path: Path) -> int:
    try:
        port: int = json.loads(path.read_text(encoding="utf-8"))["status"]
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"cannot tell the status port: {path} is not readable") from error
    return port


@app.command()
def record(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The recording to be made.")],
    *,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="End after so long.")] = None,
    host: Annotated[str | None, typer.Option(help="Instead of BRIDGE_FEED__HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Instead of BRIDGE_FEED__PORT.")] = None,
    protocols: Annotated[str | None, typer.Option(help="tcp, udp, or both: tcp,udp.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
) -> None:
    """Record what arrives on the feed's port, with its timing, until SIGTERM or SIGINT."""
    given = {"HOST": host, "PORT": port, "PROTOCOLS": protocols}
    chosen = {f"BRIDGE_FEED__{name}": str(v) for name, v in given.items() if v is not None}
    feed = load({**os.environ, **chosen}).feed
    _run_until_stopped(
        lambda stop: record_shown(file, feed, stop, _out, seconds=seconds, force=force)
    )


@app.command()
def play(
    recording: Annotated[
        Path, typer.Argument(metavar="FILE", help="A recording, or a folder of captures.")
    ],
    *,
    to: Annotated[str, typer.Option(help="HOST:PORT of the receiver.")],
    speed: Annotated[str, typer.Option(help="Factor on the recorded pace, or max.")] = "1",
    tcp: Annotated[bool, typer.Option("--tcp", help="Over TCP, however it was recorded.")] = False,
    udp: Annotated[bool, typer.Option("--udp", help="Over UDP, however it was recorded.")] = False,
    faults: Annotated[str, typer.Option(help="drop=%,cut=%,stall=SECONDS@% of the frames.")] = "",
    seed: Annotated[int, typer.Option(help="Decides which frames the faults strike.")] = 0,
) -> None:
    """Play a recording into a receiver, as it was recorded or with faults."""
    if tcp and udp:
        raise UsageError("--tcp and --udp exclude each other")
    work = play_shown(
        recording,
        Address.parse(to),
        _out,
        speed=parse_speed(speed),
        transport=Transport.TCP if tcp else Transport.UDP if udp else None,
        faults=Faults.parse(faults),
        seed=seed,
    )
    if not uvloop.run(work):
        raise typer.Exit(69)


@app.command()
def version() -> None:
    """Print the version."""
    _out.print(__version__)
