"""Follows the journal, and proves what is there: heights, links, commits, reveals.

The state machines are pure (`core.heights`, `core.receipts`); this stage feeds them, and commits in
one transaction what they say: alerts, receipts, recovered events, their state, the checkpoint. So
each is written exactly once, whatever crashes. What they say are records of the journal, and are
published like all others.

Nothing waits for the tracker. It reads ahead of its checkpoint: while there is nothing to say, its
state is committed once a second and not with every step, and what it says is gathered for a moment,
so that it costs the feed few syncs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn

from bridge import log
from bridge.core.alerts import alert_of, gap_told
from bridge.core.decode import decode, is_light
from bridge.core.flight import Flight, Work
from bridge.core.framing import frame_at, split_frames
from bridge.core.heights import Bounds, Heights, Verdict
from bridge.core.peek import Block, peek, take_identities
from bridge.core.portions import LARGE_BYTES
from bridge.core.receipts import Receipts
from bridge.core.verify import Links, verify
from bridge.errors import StorageFull
from bridge.metrics import Metrics
from bridge.model import API_PEER, Group, Kind, Note, RecordType, Run, Way
from bridge.pb.bridge.v1.gap_alert_pb2 import GapAlert
from bridge.pb.eventmessages.factomEvents_pb2 import DirectoryBlockCommit
from bridge.ports import Journal
from bridge.stages.aside import Aside
from bridge.stages.nice import nice_thread
from bridge.stages.saying import OWN_PEER, said

__all__ = ["READER", "Tracker"]

READER = "tracker"
_STEP_BYTES = 1024 * 1024
"""More is read back from the disk no faster, and is memory when the tracker has made way for long."""
_COMMIT_SECONDS = 1
_MOST_SEEN = 4_000
"""Events seen that are handed over at a time: that takes two milliseconds."""
_LARGE_BYTES = 64 * 1024
"""A block above this is hashed in a thread, for it takes milliseconds; the lanes come first."""

_ACCOUNTED = {Verdict.NEW, Verdict.LATE, Verdict.REPEATED, Verdict.DOUBTED, Verdict.ADOPTED}

_log = log.get("tracker")


class Tracker:
    """Tracks for as long as `run` is running.

    What backfill asks of it is told in `stages.wanted`.
    """

    def __init__(
        self,
        journal: Journal,
        metrics: Metrics,
        *,
        network: str,
        bounds: Bounds,
        tick_seconds: float = 1,
        gather_seconds: float = 0.03,
        retry_seconds: float = 0.5,
        flight: Flight | None = None,
        aside: Aside | None = None,
        make_way: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(0),
    ) -> None:
        """Take up the state that the journal has.

        `make_way` lets what cannot wait go first; nothing waits for the tracker.
        `gather_seconds` is how long what is said is gathered: a sync for every block that is
        replayed would be one more that live events wait for.
        """
        self._journal = journal
        self._metrics = metrics
        self._network = network
        self._tick_seconds = tick_seconds
        self._gather_seconds = gather_seconds
        self._retry_seconds = retry_seconds
        self._flight = flight or Flight.unkept()
        self._aside = aside
        self._make_way = make_way
        items, now = journal.items(READER), time.monotonic()
        self._items: dict[str, bytes | None] = {}
        """What changed of the state and is not yet committed."""
        self._heights = Heights(items, now, bounds)
        self._receipts = Receipts(items, now, fetch=self._item, grace=bounds.grace)
        self._read = self._committed = journal.position(READER)
        self._committed_at = now
        self._said: list[Run] = []
        """What came of it all and is not yet committed."""
        self._seen: list[int] = []
        self._notes: list[Note] = []
        self._woken, self._stepped = asyncio.Event(), asyncio.Event()
        self._hashing = nice_thread("tracker")
        self.sought: Callable[[int, int], None] | None = None
        """Seeks heights; None where there is nobody who would fetch them."""
        metrics.watch_tracker(lambda: journal.head - self._read)
        self._tell()

    def missing(self) -> Sequence[tuple[int, int]]:
        """See `stages.wanted`."""
        return self._heights.missing_ranges()

    def links_below(self, height: int) -> Links | None:
        """See `stages.wanted`."""
        return self._heights.links_below(height)

    def key_above(self, height: int) -> bytes | None:
        """See `stages.wanted`."""
        return self._heights.key_above(height)

    def agrees(self, height: int, key: bytes) -> bool:
        """See `stages.wanted`."""
        return self._heights.agrees(height, key)

    def blind(self, most: int) -> list[int]:
        """See `stages.wanted`."""
        return self._receipts.blind(most)

    def wanting(self, most: int) -> list[int]:
        """See `stages.wanted`."""
        return self._receipts.wanting(most)

    def missing_entries(self, height: int) -> tuple[bytes, ...]:
        """See `stages.wanted`."""
        return self._receipts.missing_entries(height)

    def tell(self, note: Note) -> None:
        """See `stages.wanted`."""
        self._notes.append(note)
        self._woken.set()

    async def caught_up(self) -> None:
        """See `stages.wanted`: also what was told is taken into account."""
        head = self._journal.head
        while self._read < head or self._notes:
            await self._stepped.wait()

    def table(self) -> dict[str, Any]:
        """Return what is there and what is not, for `status.tracking`."""
        heights = self._heights
        return {
            "network": self._network,
            "highest": heights.highest,
            "floor": heights.floor,
            "missing": heights.missing,
            "stalled": heights.stalled,
            "pending": len(self._notes),
            "gaps": [gap_told(alert_of(self._network, each)) for each in heights.open_gaps()],
        }

    async def run(self) -> NoReturn:
        """Track until cancelled."""
        try:
            while True:
                for group in await self._groups():
                    for part in self._flight.each(Work.TRACKING, group):
                        await self._track(part)
                    self._read = group.last
                await self._turn()
                stepped, self._stepped = self._stepped, asyncio.Event()
                stepped.set()
        finally:
            self._hashing.shutdown(wait=False)

    async def _groups(self) -> list[Group]:
        """Return the next groups; none after a while, and none at once where there is a note."""
        if self._journal.head <= self._read and not self._notes:
            self._woken.clear()
            grown = asyncio.create_task(self._journal.wait(self._read))
            woken = asyncio.create_task(self._woken.wait())
            try:
                await asyncio.wait(
                    (grown, woken),
                    timeout=self._gather_seconds if self._said else self._tick_seconds,
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                grown.cancel()
                woken.cancel()
                await asyncio.gather(grown, woken, return_exceptions=True)
        if self._journal.head <= self._read:
            return []
        return await self._journal.read(self._read, _STEP_BYTES)

    async def _turn(self) -> None:
        """Take what was told, do what is due, and commit what comes of it."""
        now, at_ns = time.monotonic(), time.time_ns()
        self._hand_over(self._read)
        notes, self._notes = self._notes, []
        for note in notes:
            self._heights.note(note, now, at_ns)
        self._heights.tick(now, at_ns)
        self._link()
        self._receipts.tick(now)
        await self._commit(now, at_ns)

    # What comes

    async def _track(self, group: Group) -> None:
        seq = group.first
        for run in group.runs:
            # Receiving comes first: no step holds the loop for more than a run.
            with self._flight.waiting():
                await self._make_way()
            if seq + run.records - 1 > self._read:
                kind, _, number = run.peer.partition("/")
                if kind == OWN_PEER:
                    self._own(run)
                elif kind == API_PEER:
                    await self._fetched(run, seq, int(number))
                else:
                    await self._events(run, seq)
            seq += run.records

    def _own(self, run: Run) -> None:
        """Look whether the journal lost something; what was recovered is known already."""
        for type_, payload in split_frames(run.frames):
            name, _, content = payload.partition(b"\0")
            is_alert = type_ == RecordType.OWN and name.decode() == Kind.GAP_ALERT
            if is_alert and GapAlert.FromString(content).type == GapAlert.TYPE_STORAGE:
                self._heights.storage(time.monotonic())

    async def _events(self, run: Run, seq: int) -> None:
        """Track what a node sent."""
        now, at_ns = time.monotonic(), run.received_ns
        self._heights.heard(now, at_ns)
        frames, at, heights = run.frames, 0, list[int]()
        while at < len(frames):
            at = take_identities(frames, at, self._seen, heights)
            for height in heights:
                self._heights.told(height, now, at_ns)
            heights.clear()
            if at == len(frames):
                break
            type_, payload, at = frame_at(frames, at)
            if type_ != RecordType.FEED:
                continue
            large = len(payload) > LARGE_BYTES
            if large and self._aside is not None and not is_light(payload):
                with self._flight.waiting():
                    found = await self._aside.peek(payload)
            else:
                found = peek(payload)
            if found is None:
                continue
            if isinstance(found, int):
                self._seen.append(found)
            elif isinstance(found, Block):
                self._hand_over(seq)
                way = Way.REPLAY if found.source == 1 else Way.LIVE
                await self._block(found.message, way, at_ns, len(payload))
            else:
                self._heights.told(found.height, now, at_ns)
        if len(self._seen) > _MOST_SEEN:
            self._hand_over(seq)

    async def _fetched(self, run: Run, seq: int, height: int) -> None:
        """Track what backfill brought: a block, or reveals of `height`."""
        reveals = []
        for _, payload in split_frames(run.frames):
            event = decode(payload)
            if event is None:
                continue
            if event.kind is Kind.DIRECTORY_BLOCK_COMMIT:
                self._hand_over(seq)
                await self._block(event.member, Way.API, run.received_ns, len(payload))
            elif event.kind is Kind.ENTRY_REVEAL:
                reveals.append(event.member)
        if reveals:
            self._receipts.recovered(height, reveals)

    def _hand_over(self, seq: int) -> None:
        """Hand over what was seen so far: a block is to be accounted for with all before it."""
        if self._seen:
            self._receipts.saw(seq, self._seen)
            self._seen = []

    async def _block(self, message: DirectoryBlockCommit, way: Way, at_ns: int, size: int) -> None:
        header = message.directoryBlock.header
        height = header.blockHeight
        below = self._heights.links_below(height)
        if size > _LARGE_BYTES:
            with self._flight.waiting():
                loop = asyncio.get_running_loop()
                found = await loop.run_in_executor(self._hashing, verify, message, below)
        else:
            found = verify(message, below)
        now = time.monotonic()
        verdict = self._heights.block(height, found, header.previousKeyMerkleRoot, way, now, at_ns)
        self._metrics.block_judged(verdict)
        if verdict is Verdict.ADOPTED:
            self._receipts.forget()
        if verdict in _ACCOUNTED:
            self._receipts.block(message, message.directoryBlock.keyMerkleRoot, way=way, now=now)
        self._link()
        # Blocks come in pages when they are replayed, and each takes half a millisecond.
        with self._flight.waiting():
            await asyncio.sleep(0)

    def _link(self) -> None:
        for height in self._heights.take_linked():
            self._receipts.linked(height)

    # What comes of it

    async def _commit(self, now: float, at_ns: int) -> None:
        signals, items = self._heights.take()
        derived = self._receipts.take()
        self._items |= items
        self._items |= derived.items
        self._said += said(self._network, self._metrics, signals, derived, at_ns)
        since = now - self._committed_at
        state = self._items or self._read > self._committed
        if since < (self._gather_seconds if self._said else _COMMIT_SECONDS) or not state:
            return
        while True:
            try:
                await self._journal.advance(READER, self._read, self._said, self._items)
            except StorageFull as error:
                self._metrics.storage_refused(error)
                await asyncio.sleep(self._retry_seconds)
            else:
                break
        self._items, self._said = {}, []
        self._committed, self._committed_at = self._read, now
        self._tell()

    def _item(self, name: str) -> bytes | None:
        return self._items[name] if name in self._items else self._journal.item(READER, name)

    def _tell(self) -> None:
        heights = self._heights
        self._metrics.heights(heights.open_count, heights.missing, heights.highest)
        self._metrics.blocks_forgotten(heights.dropped)
