"""`factom-bridge record` and `play`: their progress, and what they tell at the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bridge.errors import PortInUse, UsageError
from bridge.recording.faults import Faults
from bridge.recording.file import FileWriter
from bridge.recording.folder import open_recording
from bridge.recording.format import Transport
from bridge.recording.line import Address
from bridge.recording.play import AS_FAST_AS_POSSIBLE, Played, Player
from bridge.recording.record import Recorded, open_recorder
from bridge.settings import FeedSettings

__all__ = ["parse_speed", "play_shown", "record_shown"]

_BAR_WIDTH = 40


def parse_speed(text: str) -> float:
    """Read a factor, or `max`.

    Raises:
        UsageError: it is neither.
    """
    if text == "max":
        return AS_FAST_AS_POSSIBLE
    try:
        speed = float(text)
    except ValueError:
        speed = 0
    if not 0 < speed < AS_FAST_AS_POSSIBLE:
        raise UsageError(f"speed {text!r}: give a factor above 0, or max")
    return speed


async def record_shown(
    path: Path,
    settings: FeedSettings,
    stop: asyncio.Event,
    console: Console,
    *,
    seconds: float | None = None,
    force: bool = False,
) -> None:
    """Record into `path` until `stop` is set or `seconds` are over.

    Raises:
        UsageError: the file is there already, or cannot be made.
        PortInUse: the address cannot be bound.
        RecordingUnwritable: the disk is full; the file is readable up to there.
    """
    with _new(path, force=force) as file:
        async with open_recorder(settings, file) as recorder:
            console.print(f"recording {settings.host}:{recorder.port} into", Text(str(path)))
            began = time.monotonic()

            def line() -> RenderableType:
                return _recorded(recorder.recorded, time.monotonic() - began)

            with _live(console, line):
                stopped = asyncio.ensure_future(stop.wait())
                await asyncio.wait(
                    (stopped, recorder.failed),
                    timeout=seconds,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                stopped.cancel()
        if recorder.failed.done():
            recorder.failed.result()
    console.print(Text(f"{path}: {file.size:,} bytes"))


@contextmanager
def _new(path: Path, *, force: bool) -> Iterator[FileWriter]:
    """Make the file, and take it away again where nothing could be recorded for want of a port."""
    try:
        with FileWriter(path, force=force) as file:
            yield file
    except PortInUse:
        path.unlink()
        raise


@contextmanager
def _live(console: Console, picture: Callable[[], RenderableType]) -> Iterator[None]:
    """Show `picture` while the body runs; elsewhere than on a terminal, once at its end."""
    if console.is_terminal:
        with Live(console=console, refresh_per_second=8, get_renderable=picture):
            yield
        return
    try:
        yield
    finally:
        console.print(picture())


def _recorded(told: Recorded, seconds: float) -> Text:
    parts = [
        f"{told.peers} peers ({told.open} open)",
        f"{told.frames:,} frames",
        f"{told.bytes:,} bytes",
        f"{seconds:.0f} s",
    ]
    if told.refused:
        parts.append(f"{told.refused} refused (BRIDGE_FEED__ALLOW)")
    if told.gone:
        parts.append(f"{told.gone} gone at once")
    return Text("  ".join(parts))


async def play_shown(
    path: Path,
    to: Address,
    console: Console,
    *,
    speed: float = 1,
    transport: Transport | None = None,
    faults: Faults | None = None,
    seed: int = 0,
) -> bool:
    """Play the file or folder `path`; return whether all of it could be sent.

    Raises:
        UsageError: there is no such recording.
        RecordingDamaged: what is before the damage was played.
        ReceiverUnavailable: nobody listens.
    """
    source = open_recording(path)
    player = Player(to, speed=speed, transport=transport, faults=faults, seed=seed)
    began = time.monotonic()

    def picture() -> RenderableType:
        bar = ProgressBar(total=max(1, source.size), completed=source.done, width=_BAR_WIDTH)
        told = player.played
        seconds = time.monotonic() - began
        text = f"{told.connections} connections  {told.bytes:,} bytes  {seconds:.0f} s"
        line = Table.grid(padding=(0, 2))
        line.add_row(bar, text)
        return line

    try:
        with _live(console, picture):
            await player.play(source)
    finally:
        for sentence in _remarks(player.played):
            console.print(Text(sentence))
    return not player.played.unsent


def _remarks(told: Played) -> list[str]:
    faults = f"{told.dropped} frames dropped, {told.cut} cut, {told.stalled} stalled"
    remarks = {
        faults: told.dropped + told.cut + told.stalled,
        f"{told.too_large} datagrams were too large for UDP": told.too_large,
        f"{told.unframed} bytes make no frame, and were left out": told.unframed,
        f"the receiver ended {told.hung_up} connections early;"
        f" {told.unsent:,} bytes were not sent": told.hung_up,
    }
    return [sentence for sentence, count in remarks.items() if count]
