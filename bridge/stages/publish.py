"""Follows the journal into one sink: read past the checkpoint, render, send, move the checkpoint.

Each sink has a lane of its own; one that is slow or dead never delays another. Within a lane one
batch is sent while the next is rendered, and the checkpoint moves only when all of a batch is
acknowledged, so it is always a contiguous prefix. After any error the lane opens its sink anew and
sends again from the checkpoint, in order, with the same ids.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, NoReturn

from bridge import log
from bridge.core.alerts import regression_alert
from bridge.core.claim import ATTRIBUTE_BYTES, claim_check, size
from bridge.core.groups import own_run
from bridge.core.kinds import by_kind
from bridge.core.portions import portions, weight
from bridge.core.render import Rendered
from bridge.core.repeats import Repeats
from bridge.errors import (
    BridgeError,
    MessageRefused,
    SinkFault,
    SinkUnavailable,
    SinkWedged,
    StorageFull,
)
from bridge.health import Health
from bridge.metrics import Metrics
from bridge.model import Group, Kind, Message, Tail
from bridge.ports import Journal, Sink
from bridge.stages.rendering import Rendering

__all__ = ["Lane"]

_PATIENCE_SECONDS = 3

_log = log.get("publish")


class _Batch(NamedTuple):
    last: int
    received_ns: int
    """When the oldest of it was received."""
    messages: list[Message]
    rendered: Sequence[Rendered]
    fits: bool
    """Whether no message is over its limit."""


class Lane:
    """Publishes the journal to one sink, for as long as `run` is running."""

    def __init__(
        self,
        journal: Journal,
        rendering: Rendering,
        sink: Sink,
        metrics: Metrics,
        health: Health,
        *,
        network: str = "main",
        waits: tuple[float, float] = (0.1, 10.0),
        step_bytes: int = 1024 * 1024,
        when_wedged: Callable[[], None] = lambda: None,
    ) -> None:
        """Make the lane of `sink`.

        `network` is told in alerts; `waits` are the shortest and the longest time, in seconds,
        before it is opened anew;
        `step_bytes` is about how much is sent at a time, as `portions.weight` counts; `when_wedged`
        is called when the broker answers but acknowledges nothing.
        """
        self._journal = journal
        self._rendering = rendering
        self._sink = sink
        self._metrics = metrics
        self._health = health
        self._network = network
        self._when_wedged = when_wedged
        self._step_bytes = step_bytes
        self._first_wait, self._longest_wait = waits
        self._oldest_ns = 0
        self._ahead: Iterator[Group] = iter(())
        """Portions that were read, and are not yet gathered."""
        self._repeats = Repeats()
        metrics.watch_sink(sink.name, lambda: self.lag, lambda: self.lag_seconds)

    @property
    def name(self) -> str:
        """The sink's name."""
        return self._sink.name

    @property
    def lag(self) -> int:
        """Records committed and not yet published."""
        return self._journal.head - self._journal.position(self.name)

    @property
    def lag_seconds(self) -> float:
        """Age of the oldest record not yet published; 0 when there is none."""
        if not self.lag or not self._oldest_ns:
            return 0.0
        return max(0.0, (time.time_ns() - self._oldest_ns) / 1e9)

    async def run(self) -> NoReturn:
        """Publish until cancelled."""
        wait = self._first_wait
        self._health.told(self.name, "connecting")
        for group in await self._journal.read(self._journal.position(self.name), 0):
            self._oldest_ns = group.runs[0].received_ns if group.runs else 0
        while True:
            began = self._journal.position(self.name)
            try:
                await self._sink.open()
                await self._take_stock()
                if not self.lag:
                    self._up()
                await self._follow()
            except (SinkUnavailable, SinkFault) as error:
                self._down(error)
                if isinstance(error, SinkWedged):
                    self._when_wedged()
            finally:
                await self._sink.close()
            if self._journal.position(self.name) > began:
                wait = self._first_wait
            await asyncio.sleep(wait * random.uniform(0.5, 1))  # noqa: S311  (jitter)
            wait = min(wait * 2, self._longest_wait)

    async def drained(self) -> None:
        """Return when everything committed so far is published."""
        head = self._journal.head
        while self._journal.position(self.name) < head:  # noqa: ASYNC110  (once, at the end)
            await asyncio.sleep(0.01)

    def _up(self) -> None:
        self._metrics.sink_up(self.name, up=True)
        if self._health.told(self.name, "ready", ready=True):
            _log.info("sink is ready", sink=self.name, lag=self.lag)

    def _down(self, error: BridgeError) -> None:
        self._metrics.sink_up(self.name, up=False)
        self._metrics.sink_failed(self.name, error)
        if self._health.told(self.name, error.code, cause=str(error)):
            _log.warning(
                "sink is down, the journal keeps its events",
                sink=self.name,
                error=str(error),
                remedy=error.remedy,
            )

    async def _take_stock(self) -> None:
        """Compare the checkpoint with what the broker holds, and move it there.

        Forward, if a crash came between acknowledgement and checkpoint: nothing is sent twice. Back,
        if the broker lost what it had acknowledged: all of it is sent again, with the same ids.
        """
        standing = await self._sink.standing(self._journal.state(self.name), self._is_ours)
        position = self._journal.position(self.name)
        held = standing.tail.seq if standing.tail is not None else 0
        if standing.lost and held < position:
            await self._alert_loss(held, position)
            self._repeats.forget()
            self._journal.checkpoint(self.name, held)
            self._metrics.sink_regressed(self.name)
        elif held > position:
            self._journal.checkpoint(self.name, held)

    async def _is_ours(self, tail: Tail) -> bool:
        """Say whether `tail` is the very message that the journal has under its number."""
        if tail.seq > self._journal.head:
            return False
        for part in _cut(await self._journal.read(tail.seq - 1, 0), tail.seq - 1):
            for message in (await self._rendering.of(part)).messages:
                if message.seq >= tail.seq:
                    return (message.seq, message.id) == tail
        return False

    async def _alert_loss(self, held: int, position: int) -> None:
        now = time.time_ns()
        alert = regression_alert(self._network, self.name, held, position, now)
        _log.error("sink lost what it had acknowledged", sink=self.name, held=held, had=position)
        try:
            await self._journal.append([own_run(Kind.GAP_ALERT, alert.SerializeToString(), now)])
        except StorageFull as error:
            raise SinkUnavailable(f"its loss cannot be noted: {error}") from error

    async def _follow(self) -> NoReturn:
        journal, after = self._journal, self._journal.position(self.name)
        self._ahead = iter(())
        sending: asyncio.Task[None] | None = None
        try:
            while True:
                if sending is not None and journal.head <= after:
                    await self._acknowledged(sending)
                    sending = None
                if journal.head <= after:
                    await self._grown(after)
                batch = await self._gather(after)
                if batch.fits and batch.messages:
                    await self._sink.prepare(batch.messages)
                after = batch.last
                before, sending = sending, asyncio.create_task(self._send(batch, sending))
                if before is not None:
                    await self._acknowledged(before)
                if not batch.fits:
                    # It is not prepared, so that what is prepared behind it could overtake it.
                    await self._acknowledged(sending)
                    sending = None
        finally:
            if sending is not None:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)

    async def _grown(self, after: int) -> None:
        """Return when there is something to send; meanwhile notice a broker that goes away."""
        grown = asyncio.create_task(self._journal.wait(after))
        watching = asyncio.create_task(self._sink.watch())
        try:
            await asyncio.wait((grown, watching), return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
        finally:
            grown.cancel()
            watching.cancel()
            await asyncio.gather(grown, watching, return_exceptions=True)

    async def _acknowledged(self, sending: asyncio.Task[None]) -> None:
        """Return when it is. A broker that keeps us waiting is not ready, though not yet down."""
        done, _ = await asyncio.wait((sending,), timeout=_PATIENCE_SECONDS)
        if not done:
            self._metrics.sink_up(self.name, up=False)
            cause = f"no acknowledgement for {_PATIENCE_SECONDS} s"
            if self._health.told(self.name, "waiting", cause=cause):
                _log.warning("sink does not acknowledge", sink=self.name, lag=self.lag)
        await sending

    async def _gather(self, after: int) -> _Batch:
        messages: list[Message] = []
        rendered: list[Rendered] = []
        received_ns = 0
        size = 0
        part: Group | None = next(self._ahead, None) or await self._read_on(after)
        while part is not None:
            one = self._repeats.without(await self._rendering.of(part))
            rendered.append(one)
            received_ns = received_ns or (part.runs[0].received_ns if part.runs else 0)
            if one.first > after:
                messages += one.messages
            else:
                messages += [message for message in one.messages if message.seq > after]
            # Receiving comes first: rendering never holds the loop for more than a portion.
            await asyncio.sleep(0)
            size += weight(part)
            part = next(self._ahead, None) if size < self._step_bytes else None
        # All may be trimmed that a sink which was set back has lost.
        last = rendered[-1].last if rendered else self._journal.head
        return _Batch(last, received_ns, messages, rendered, self._all_fit(messages))

    async def _read_on(self, after: int) -> Group | None:
        self._ahead = _cut(await self._journal.read(after, self._step_bytes), after)
        return next(self._ahead, None)

    async def _send(self, batch: _Batch, before: asyncio.Task[None] | None) -> None:
        """Send `batch` as soon as the one `before` it is acknowledged; fail if that one fails."""
        if before is not None:
            await before
        self._oldest_ns = batch.received_ns
        sink, messages = self._sink, batch.messages
        if not batch.fits:
            await self._set_aside_what_is_too_large(messages)
        start = duplicates = 0
        while start < len(messages):
            try:
                duplicates += await sink.publish(messages[start:] if start else messages)
            except MessageRefused as error:
                start += error.position
                messages[start] = await self._instead(messages[start], str(error))
            else:
                break
        self._journal.checkpoint(self.name, batch.last, sink.mark)
        self._up()
        self._metrics.published(self.name, by_kind(messages).messages, duplicates)
        for one in batch.rendered:
            if one.left_out:
                self._metrics.left_out(self.name, one.left_out)

    def _all_fit(self, messages: list[Message]) -> bool:
        """Say whether none of them can be over its limit. Costs little."""
        kinds, largest = by_kind(messages)
        return not kinds or largest + ATTRIBUTE_BYTES <= min(map(self._sink.limit, kinds))

    async def _set_aside_what_is_too_large(self, messages: list[Message]) -> None:
        limit = self._sink.limit
        for place, message in enumerate(messages):
            if size(message) > limit(message.kind):
                messages[place] = await self._set_aside(message)

    async def _set_aside(self, message: Message) -> Message:
        reference = await self._sink.set_aside(message)
        self._metrics.set_aside(self.name)
        _log.info(
            "too large, stored beside",
            sink=self.name,
            kind=message.kind.value,
            bytes=message.data_size,
            at=reference,
        )
        return claim_check(message, reference)

    async def _instead(self, message: Message, error: str) -> Message:
        """Return what to send in place of a refused message, with the sink opened anew."""
        _log.warning(
            "message refused", sink=self.name, kind=message.kind.value, id=message.id, error=error
        )
        await self._sink.close()
        await self._sink.open()
        if message.data_size and size(message) > self._sink.limit(message.layout.kind):
            # The limit was lowered since.
            return await self._set_aside(message)
        if message.kind is Kind.DEAD_LETTER:
            raise SinkFault(f"{self.name} refuses even the dead letter: {error}")
        return self._rendering.refused(message, self.name, error)


def _cut(groups: Iterable[Group], after: int) -> Iterator[Group]:
    """Yield the portions of `groups` that hold what comes behind the record `after`."""
    return (part for group in groups for part in portions(group) if part.last > after)
