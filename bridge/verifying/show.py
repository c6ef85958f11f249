"""The command: reads each broker that the settings name, and shows what is proven."""

from __future__ import annotations

import re
from contextlib import aclosing
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from bridge.core.completeness import Completeness, Result
from bridge.core.routing import ChainFilter
from bridge.errors import DecodeError, UsageError
from bridge.model import Kind
from bridge.settings import Settings
from bridge.verifying.brokers import brokers
from bridge.verifying.data import Data
from bridge.verifying.source import Published, Source

__all__ = ["verify_published"]

_BLOCKS = Kind.DIRECTORY_BLOCK_COMMIT
_TOLD_EVERY = 100
"""Messages between two looks of the progress bar, which costs more than to read one."""

_HEIGHT = re.compile("[0-9]{1,10}")
_BESIDE = (Kind.CHAIN_COMMIT, Kind.ENTRY_COMMIT, Kind.ENTRY_REVEAL)


async def verify_published(
    settings: Settings,
    first: int | None,
    last: int | None,
    sink: Literal["nats", "kafka"] | None,
    out: Console,
    err: Console,
) -> bool:
    """Show what is proven of the heights from `first` to `last`; return whether all of it holds.

    Raises:
        UsageError: the range or the choice of broker makes no sense with these settings.
        SinkUnavailable, SinkFault: a broker is away, or has not what the settings name.
    """
    if first is not None and last is not None and first > last:
        raise UsageError(f"the range from {first} to {last} is empty")
    if _BLOCKS in settings.off:
        raise UsageError("directory blocks are switched off (BRIDGE_OFF): nothing can be proven")
    complete = True
    for opening in brokers(settings, sink).values():
        async with opening as source:
            with Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=err,
                transient=True,
                disable=not err.is_terminal,
            ) as progress:
                result = await _Verifier(settings, source, progress).run(first, last)
        _show(source.name, result, out)
        complete &= result.complete
    return complete


class _Verifier:
    """Takes one broker's messages in the order that proves most with least memory."""

    def __init__(self, settings: Settings, source: Source, progress: Progress) -> None:
        self._off = frozenset(settings.off)
        self._chains = ChainFilter.of(bytes.fromhex(chain) for chain in settings.chains)
        self._source = source
        self._data = Data(source, settings.json_bytes)
        self._progress = progress

    async def run(self, first: int | None, last: int | None) -> Result:
        """Return what is proven."""
        proof = Completeness(first, last, off=self._off, chains=self._chains)
        await self._read(_BLOCKS, proof)
        if proof.early:
            proof = Completeness(first, last, off=self._off, chains=self._chains, links=proof.links)
            await self._read(_BLOCKS, proof)
        for kind in _BESIDE:
            if kind not in self._off:
                await self._read(kind, proof)
        return proof.result()

    async def _read(self, kind: Kind, proof: Completeness) -> None:
        bar = self._progress.add_task(f"{self._source.name}: {kind}", total=None)
        done = 0
        async with aclosing(self._source.read(kind)) as messages:
            async for message in messages:
                done += 1
                if done % _TOLD_EVERY == 0 or not message.left:
                    self._progress.update(bar, completed=done, total=done + message.left)
                if _concerns(kind, message, proof):
                    try:
                        proof.add(kind, await self._data.read(kind, message))
                    except DecodeError as error:
                        proof.wrong(str(error))


def _concerns(kind: Kind, message: Published, proof: Completeness) -> bool:
    """Whether `message` can say anything: of a block the attributes tell that, before its data."""
    height = message.attributes.get("blockheight", "")
    return kind is not _BLOCKS or not _HEIGHT.fullmatch(height) or proof.wants(int(height))


def _show(name: str, result: Result, out: Console) -> None:
    table = Table("", "checked", "missing or wrong", "", box=None, pad_edge=False)
    table.title, table.title_justify = f"{name}: heights {result.first} to {result.last}", "left"
    for column in table.columns[1:3]:
        column.justify = "right"
    for line in result.checked:
        style = "bold red" if line.wrong else "green"
        wrong = f"[{style}]{line.wrong}[/]"
        table.add_row(line.what, str(line.checked), wrong, f"[dim]{escape(line.note)}[/]")
    out.print(table)
    for problem in result.problems:
        out.print(f"- {problem}", markup=False)
    if result.unnamed:
        out.print(f"- and {result.unnamed} more")
    out.print("[green]complete[/]" if result.complete else "[bold red]not complete[/]")
