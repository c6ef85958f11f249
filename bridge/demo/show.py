"""The demo: plays, consumes, and draws both."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from importlib.resources import files

import nats
import orjson
from nats.aio.msg import Msg
from rich.console import Console, Group as Stack, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bridge.app import Running, running
from bridge.core.decode import decode
from bridge.core.framing import frame, split_frames
from bridge.environment import load
from bridge.model import Kind

__all__ = ["show"]

_CONNECTIONS = ("connection-1.bin", "connection-2.bin")
_LAST_SECONDS = 3
"""Kept at the end of the time for the last messages to arrive and to be looked at."""

_SHOWN_ALERTS = 4


@dataclass
class _Seen:
    """What went in and what came out."""

    expected: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    read: Counter[str] = field(default_factory=Counter)
    ids: set[str] = field(default_factory=set)
    empty: int = 0
    last: dict[str, str] = field(default_factory=dict)
    alerts: list[str] = field(default_factory=list)
    receipts: int = 0
    recovered: int = 0
    """Commits that the node told nobody while it was dark, and that a later block lists."""

    @property
    def complete(self) -> bool:
        """Whether every message of the recording was read back, and the one alert."""
        return self.read == self.expected


def _recording() -> list[list[tuple[bytes, str]]]:
    """Return, per connection, each frame and the kind of its event (empty: no member set)."""
    connections = []
    for name in _CONNECTIONS:
        stream = files("bridge.demo").joinpath(name).read_bytes()
        frames = []
        for _, payload in split_frames(stream):
            event = decode(payload)
            frames.append((frame(payload), event.kind.value if event else ""))
        connections.append(frames)
    return connections


async def show(seconds: float, console: Console) -> bool:
    """Run the demo for about `seconds`; return whether every message arrived."""
    with tempfile.TemporaryDirectory(prefix="factom-bridge-demo-") as folder:
        settings = load(
            {
                "BRIDGE_NETWORK": "demo",
                "BRIDGE_JOURNAL__DIR": folder,
                "BRIDGE_FEED__PORT": "0",
                "BRIDGE_STATUS__PORT": "0",
                "BRIDGE_EMBEDDED__PORT": "0",
                "BRIDGE_TRACKER__GRACE_SECONDS": "1",
            }
        )
        async with running(settings) as bridge:
            return await _show(bridge, seconds, console)


async def _show(bridge: Running, seconds: float, console: Console) -> bool:
    recording = _recording()
    seen = _Seen()
    for frames in recording:
        seen.expected.update(kind for _, kind in frames if kind)
    seen.expected[Kind.GAP_ALERT.value] = 1
    client = await nats.connect(f"nats://127.0.0.1:{bridge.ports['nats']}")
    try:
        await _stream_made(bridge)

        async def read(message: Msg) -> None:
            _note(seen, message)

        await client.jetstream().subscribe("factom.>", stream="FACTOM", cb=read)
        began = time.monotonic()
        pace = max(0.5, seconds - _LAST_SECONDS)
        with Live(
            console=console,
            refresh_per_second=8,
            get_renderable=lambda: _picture(bridge, seen, (time.monotonic() - began) / seconds),
        ) as live:
            await _play(recording, bridge.ports["feed"], pace, seen)
            await asyncio.wait([bridge.failed], timeout=began + seconds - time.monotonic())
            live.refresh()
    finally:
        await client.close()
    _verdict(seen, console)
    return seen.complete


async def _stream_made(bridge: Running) -> None:
    async with asyncio.timeout(10):
        while not bridge.health.ready:  # noqa: ASYNC110  (a state, asked a few times)
            await asyncio.sleep(0.02)


async def _play(
    recording: list[list[tuple[bytes, str]]], port: int, seconds: float, seen: _Seen
) -> None:
    """Send the recording as the node did: one connection after the other, evenly in time."""
    pause = seconds / sum(len(frames) for frames in recording)
    for frames in recording:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        for bytes_, kind in frames:
            writer.write(bytes_)
            await writer.drain()
            if kind:
                seen.sent[kind] += 1
            else:
                seen.empty += 1
            await asyncio.sleep(pause)
        writer.close()
        await writer.wait_closed()


def _note(seen: _Seen, message: Msg) -> None:
    headers = message.headers or {}
    kind = headers.get("ce-type", "").removeprefix("com.factom.livefeed.").removesuffix(".v1")
    if headers.get("ce-id", "") in seen.ids:
        return
    seen.ids.add(headers.get("ce-id", ""))
    if kind == Kind.BLOCK_RECEIPT:
        seen.receipts += 1
        seen.last[kind] = _summary(kind, headers)
        return
    if "commit" in kind and "ce-entitystate" in headers and "ce-nodeidentity" not in headers:
        seen.recovered += 1
        return
    seen.read[kind] += 1
    seen.last[kind] = _summary(kind, headers)
    if kind == Kind.GAP_ALERT:
        alert = orjson.loads(message.data)
        seen.alerts.append(
            f"gap {alert['status'].removeprefix('STATUS_').lower()}: heights"
            f" {alert['firstHeight']} to {alert['lastHeight']}, {alert['missingCount']} missing"
        )


def _summary(kind: str, headers: dict[str, str]) -> str:
    names = ("blockheight", "entitystate", "blockdetail")
    parts = [headers[f"ce-{name}"] for name in names if f"ce-{name}" in headers]
    if "ce-blockheight" not in headers:
        parts.append(headers.get("ce-subject", "")[:16])
    return " ".join(parts)


def _picture(bridge: Running, seen: _Seen, done: float) -> RenderableType:
    table = Table(expand=True, header_style="bold")
    table.add_column("NATS subject", no_wrap=True)
    table.add_column("sent", justify="right", no_wrap=True)
    table.add_column("read back", justify="right", no_wrap=True)
    table.add_column("the last one", overflow="ellipsis", no_wrap=True, ratio=1)
    for kind in Kind:
        name = kind.value
        sent, expected, read = seen.sent[name], seen.expected[name], seen.read[name]
        if not expected:
            continue
        style = "green" if read == expected else "yellow" if read < sent else ""
        subject = f"factom.{name}" + {
            Kind.ENTRY_REVEAL: ".{chain}",
            Kind.GAP_ALERT: ".{status}",
        }.get(kind, "")
        origin = f"{sent} of {expected}" if kind is not Kind.GAP_ALERT else "by the bridge"
        table.add_row(subject, origin, Text(str(read), style), seen.last.get(name, ""))
    receipts = (f"factom.{Kind.BLOCK_RECEIPT}", "by the bridge", str(seen.receipts))
    table.add_row(*receipts, seen.last.get(Kind.BLOCK_RECEIPT, ""))
    if seen.recovered:
        table.add_row("(commits out of blocks)", "by the bridge", str(seen.recovered), "")
    table.add_row("(events with no member)", str(seen.empty), "counted", "", style="dim")
    head = Text.assemble(
        "A recorded feed of a real node goes to ",
        (f"tcp 127.0.0.1:{bridge.ports['feed']}", "bold"),
        ", through the journal,\nto JetStream on ",
        (f"nats://127.0.0.1:{bridge.ports['nats']}", "bold"),
        ",\nand is read back here by a plain consumer. Status: ",
        f"http://127.0.0.1:{bridge.ports['status']}/readyz",
    )
    alerts = seen.alerts[-_SHOWN_ALERTS:] or ["none yet: the node goes dark in the middle"]
    panel = Panel(
        "\n".join(alerts),
        title="gap alerts",
        border_style="red" if seen.alerts else "dim",
        title_align="left",
    )
    return Stack(head, ProgressBar(total=1, completed=min(1.0, done)), table, panel)


def _verdict(seen: _Seen, console: Console) -> None:
    total = seen.expected.total()
    console.print()
    if seen.complete:
        console.print(
            f"[bold green]All {total} messages arrived[/], each with its own id, in JetStream;"
            " the gap was found and told."
        )
        return
    missing = seen.expected - seen.read
    surplus = seen.read - seen.expected
    console.print(f"[bold red]Not as expected[/]: missing {dict(missing)}, more {dict(surplus)}")
