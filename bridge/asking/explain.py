"""`factom-bridge explain`: what is known of one hash or height.

The journal tells what arrived, the brokers where it was published, the running bridge which gap it
lies in. Each of them may be away: then what the others know is told, and that one was.
"""

from __future__ import annotations

import json
from contextlib import AbstractAsyncContextManager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from bridge.app import routes_of
from bridge.asking import published, recorded
from bridge.asking.answer import Answer
from bridge.asking.client import Bridge, Unanswered
from bridge.asking.subject import Subject
from bridge.core.alerts import gap_told
from bridge.core.asjson import rfc3339
from bridge.core.render import Renderer
from bridge.core.routing import ChainFilter
from bridge.errors import BridgeError, SinkUnavailable
from bridge.journal.reading import Horizon, JournalFile, open_file
from bridge.model import Kind
from bridge.settings import Settings
from bridge.verifying.brokers import brokers
from bridge.verifying.data import Data
from bridge.verifying.source import Source

__all__ = ["explain_shown"]

_MOST_HEIGHTS = 3
"""Heights of which the account is told: a chain's id is named in very many."""

_OWN_WORDS = (Kind.BLOCK_RECEIPT, Kind.GAP_ALERT)


async def explain_shown(
    settings: Settings, text: str, out: Console, err: Console, *, as_json: bool, whole: bool
) -> int:
    """Show what is known of the hash or height `text`; return the exit code: 1 if nothing is.

    `whole` reads the brokers from their beginning to their end, as is done anyway when the journal
    holds nothing of it.

    Raises:
        UsageError: it is neither a hash nor a height.
    """
    subject = Subject.parse(text)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    ) as progress:
        explainer = _Explainer(settings, subject, _Bars(progress))
        answer = await explainer.explain(whole=whole)
    if as_json:
        out.out(json.dumps(answer.told, indent=2))
    else:
        answer.show(out)
    return 0 if answer.known else 1


class _Bars:
    """A bar for each thing that is read."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, tuple[TaskID, int]] = {}

    def told(self, what: str, left: int) -> None:
        """Show that of `what` there is this much left; the first time tells how much it is."""
        if what not in self._bars:
            self._bars[what] = self._progress.add_task(what, total=left + 1), left + 1
        bar, total = self._bars[what]
        # To look costs more than to read a message.
        if left % 100 == 0:
            self._progress.update(bar, completed=max(total - left, 0))


class _Explainer:
    def __init__(self, settings: Settings, subject: Subject, bars: _Bars) -> None:
        self._settings = settings
        self._subject = subject
        self._answer = Answer(subject)
        self._account = recorded.Account()
        self._accounted = False
        """Whether all was read that the bridge itself said of the heights."""
        self._bars = bars

    async def explain(self, *, whole: bool) -> Answer:
        """Ask all that may know."""
        answer = self._answer
        gaps = self._running_gaps()
        try:
            with open_file(self._settings.journal.dir) as file:
                self._read(file)
        except BridgeError as error:
            answer.notes.append(f"{error}; what arrived is told as far as the brokers hold it")
        for name, opening in self._brokers().items():
            await self._ask(name, opening, whole=whole or not answer.sightings.counts)
        answer.receipts = {
            height: receipt
            for height, receipt in self._account.receipts.items()
            if height in self._heights()
        }
        told = {id_: gap_told(alert) for id_, alert in self._account.alerts.items()}
        latest = told | {gap["id"]: gap for gap in gaps}
        answer.gaps = [gap for gap in latest.values() if self._concerns(gap)]
        return answer

    def _heights(self) -> list[int]:
        """Return the heights whose account belongs to the answer."""
        if self._subject.height is not None:
            return [self._subject.height]
        return self._answer.sightings.heights()[:_MOST_HEIGHTS]

    def _concerns(self, gap: dict[str, Any]) -> bool:
        return any(gap["first"] <= height <= gap["last"] for height in self._heights())

    def _running_gaps(self) -> list[dict[str, Any]]:
        try:
            gaps: list[dict[str, Any]] = Bridge.of(self._settings).get("/gaps")["gaps"]
        except Unanswered as unanswered:
            self._answer.notes.append(f"{unanswered}; gaps are told as they were published last")
            return []
        return gaps

    def _read(self, file: JournalFile) -> None:
        horizon = file.horizon()

        def told(what: str, seq: int) -> None:
            self._bars.told(f"journal: {what}", max(horizon.last - seq, 0))

        settings = self._settings
        renderer = Renderer(
            network=settings.network,
            epoch=file.epoch,
            routes=routes_of(settings),
            chains=ChainFilter.of(map(bytes.fromhex, settings.chains)),
            format=settings.format,
            json_bytes=settings.json_bytes,
        )
        answer = self._answer
        answer.positions = file.positions()
        answer.sightings = recorded.recorded(
            file, self._subject, renderer, lambda seq: told("events", seq)
        )
        heights = self._heights()
        if heights:
            self._account = recorded.account(file, heights, lambda seq: told("account", seq))
            self._accounted = horizon.first == 1
        answer.notes.append(_horizon(horizon))

    def _brokers(self) -> dict[str, AbstractAsyncContextManager[Source]]:
        try:
            return brokers(self._settings)
        except SinkUnavailable as error:
            self._answer.notes.append(str(error))
            return {}

    async def _ask(
        self, name: str, opening: AbstractAsyncContextManager[Source], *, whole: bool
    ) -> None:
        try:
            async with opening as source:
                await self._look(source, whole=whole)
        except BridgeError as error:
            self._answer.notes.append(f"{name}: {error}")

    async def _look(self, source: Source, *, whole: bool) -> None:
        answer, told, off = self._answer, self._bars.told, set(self._settings.off)
        data = Data(source, self._settings.json_bytes)
        if whole:
            kinds = [kind for kind in Kind if kind not in off]
            answer.seen_in(
                source.name, await published.search(source, self._subject, kinds, data, told)
            )
            answer.notes.append(f"{source.name} was read whole")
        else:
            looked_for = published.wanted(answer.sightings)
            answer.places[source.name] = await published.locate(source, looked_for, told)
        heights = self._heights()
        if heights and not self._accounted:
            kinds = [kind for kind in _OWN_WORDS if kind not in off]
            self._account.fill(await published.account(source, heights, kinds, data, told))
            self._accounted = True


def _horizon(horizon: Horizon) -> str:
    if not horizon.first:
        return "the journal holds nothing yet"
    since = rfc3339(horizon.first_ns // 1_000_000_000, 0)
    return f"the journal goes back to number {horizon.first}, of {since}, and up to {horizon.last}"
