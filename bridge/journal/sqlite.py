"""The journal on SQLite.

One row is a group: what one commit made durable, as a blob of many records (`core.groups`); of a
large commit the blob is in a segment (`journal.segments`), so SQLite has only the little. Its
recovery is one that others have proven. WAL and `synchronous=FULL`: a commit is on the disk when it
returns, and a torn tail was never accepted.

One connection writes, in a thread of its own, and it alone checkpoints the WAL; another one reads,
in short transactions. Checkpoints of the readers ride along with the next commit. Delivered
records stay for the replay horizon; trimming takes whole groups from the old end, and only behind
checkpoints that are durable. On a full disk an alert and the trimming have the room of a reserve.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import apsw
import google_crc32c

from bridge.core.flight import Flight
from bridge.core.groups import Row, pack
from bridge.core.hot import Hot
from bridge.errors import StorageFull
from bridge.journal import rows
from bridge.journal.cache import PageCache
from bridge.journal.file import (
    PAGE_BYTES,
    WalLength,
    fold,
    fold_behind,
    one,
    read_only,
    refuse,
    roll_back,
)
from bridge.journal.marks import Marks
from bridge.journal.reserve import Reserve
from bridge.journal.segments import Segments
from bridge.metrics import Metrics
from bridge.model import Group, Run
from bridge.settings import JournalSettings

__all__ = ["Journal"]

_OLD = (
    "SELECT first FROM groups WHERE first <= ?1 AND first + count - 1 <= ?1 ORDER BY first LIMIT ?2"
)
_TRIM_ROWS, _VACUUM_PAGES = 64, 2_000
"""Rows deleted, and pages given back, in one transaction: no commit waits long behind it."""

_ROOM_ROWS = 1_000
"""The same where nothing can be committed meanwhile: the fewer transactions, the less room."""

_HOT_BYTES = 4 * 1024 * 1024
"""Of what was committed last, kept in memory for readers that keep up."""

_FOR_ALERTS = 4
"""Slices of the reserve that trimming leaves."""

T = TypeVar("T")


class Journal:
    """See `ports.Journal`. Made by `journal.open_journal`."""

    def __init__(
        self,
        settings: JournalSettings,
        writer: apsw.Connection,
        reader: apsw.Connection,
        reserve: Reserve,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._writer = writer
        self._reader = reader
        self._reserve = reserve
        self._wal = WalLength(writer)
        self._items = read_only(Path(reader.filename))
        self._write_thread = ThreadPoolExecutor(1, "journal-writer")
        self._read_thread = ThreadPoolExecutor(1, "journal-reader")
        self._grown = asyncio.Event()
        self._hot = Hot(_HOT_BYTES)
        self.cut_off = 0
        """Transactions that were accepted, and lost to damage of the WAL."""
        self.flight = Flight.unkept()
        self.epoch: str = one(writer, "SELECT value FROM meta WHERE name = 'epoch'")
        self._inherited = rows.inherited(writer)
        self.head = self._written = self._inherited.head
        self._readers: dict[str, int] = {}
        self._states: dict[str, bytes] = {}
        for name, seq, state in rows.checkpoints(writer):
            self._readers[name] = seq
            if state is not None:
                self._states[name] = state
        self._durable = dict(self._readers)
        self._marks = Marks(settings.replay_seconds, self.head)
        self._cache = PageCache(writer, self._wal)
        self._segments = Segments(settings, rows.referred(writer), self._inherited.last_row)

    # Reading

    def position(self, reader: str) -> int:
        """See `ports.Journal`."""
        return self._readers.get(reader, 0)

    def state(self, reader: str) -> bytes | None:
        """See `ports.Journal`."""
        return self._states.get(reader)

    async def wait(self, after: int) -> None:
        """See `ports.Journal`."""
        while self.head <= after:
            await self._grown.wait()

    async def read(self, after: int, max_bytes: int) -> list[Group]:
        """See `ports.Journal`."""
        hot = self._hot.read(after, max_bytes)
        return hot or await self._in(self._read_thread, self._read, after, max_bytes)

    def _read(self, after: int, max_bytes: int) -> list[Group]:
        return rows.groups_after(self._reader, after, max_bytes, self._inherited, self.head)

    # Writing

    def register(self, readers: Iterable[str]) -> None:
        """Say who reads. Trimming waits for each of them, from their first record on.

        A reader that is new starts at the oldest record kept. One that is gone holds nothing back.
        """
        first = rows.oldest(self._writer) or 1
        names = list(readers)
        self._readers = {name: self._readers.get(name, first - 1) for name in names}
        self._durable = {name: self._durable.get(name, first - 1) for name in names}

    async def append(self, runs: Sequence[Run], *, urgent: bool = False) -> int:
        """See `ports.Journal`."""
        write = self._commit_urgently if urgent else self._commit_within_cap
        try:
            groups = await self._committed(write, runs)
        except StorageFull as error:
            self._metrics.storage_refused(error)
            await self._in(self._write_thread, self._make_room)
            again = self._commit_urgently if urgent else self._commit_anyhow
            groups = await self._committed(again, runs)
        return groups[-1].last

    async def advance(
        self, reader: str, seq: int, runs: Sequence[Run], items: Mapping[str, bytes | None]
    ) -> None:
        """See `ports.Journal`."""
        await self._committed(self._commit, runs, (reader, seq, items))

    def items(self, reader: str) -> list[tuple[str, bytes]]:
        """See `ports.Journal`."""
        return rows.look(self._items, rows.ITEMS, (reader,))

    def item(self, reader: str, name: str) -> bytes | None:
        """See `ports.Journal`."""
        found = rows.look(self._items, rows.ITEM, (reader, name))
        return found[0][0] if found else None

    def checkpoint(self, reader: str, seq: int, state: bytes | None = None) -> None:
        """See `ports.Journal`."""
        if state is not None:
            self._states[reader] = state
        self._readers[reader] = seq

    async def tend(self, every_seconds: float = 0.25) -> None:
        """Keep house until cancelled: write checkpoints down, trim, measure."""
        while True:
            await asyncio.sleep(every_seconds)
            try:
                await self.flush()
                while await self._in(self._write_thread, self._trim):
                    pass
                await self._in(self._write_thread, self._tidy)
            except StorageFull as error:
                self._metrics.storage_refused(error)

    async def flush(self) -> None:
        """Make the checkpoints durable. Raises: as `append`."""
        if self._readers != self._durable:
            await self._in(self._write_thread, self._commit)

    async def _committed(self, write: Callable[..., list[Group]], *what: object) -> list[Group]:
        writing = asyncio.get_running_loop().run_in_executor(self._write_thread, write, *what)
        writing.add_done_callback(self._tell)
        try:
            return await asyncio.shield(writing)
        except asyncio.CancelledError:
            # A commit in progress may not be cancelled; who has ended its maker is to know of it.
            await asyncio.wait((writing,))
            raise

    def _tell(self, writing: asyncio.Future[list[Group]]) -> None:
        groups = [] if writing.exception() else writing.result()
        self._hot.add(groups)
        if groups and groups[-1].last > self.head:
            self.head = groups[-1].last
            grown, self._grown = self._grown, asyncio.Event()
            grown.set()

    async def _in(
        self, thread: ThreadPoolExecutor, call: Callable[..., T], *arguments: object
    ) -> T:
        # Shielded: whoever waits may be cancelled, a write in progress may not.
        loop = asyncio.get_running_loop()
        return await asyncio.shield(loop.run_in_executor(thread, call, *arguments))

    def _commit_urgently(self, runs: Sequence[Run]) -> list[Group]:
        return self._reserve.spend(partial(self._commit, runs))

    def _commit_within_cap(self, runs: Sequence[Run]) -> list[Group]:
        self._respect_cap()
        return self._commit(runs)

    def _commit_anyhow(self, runs: Sequence[Run]) -> list[Group]:
        """Commit in the room of rows or in that of segments, where there is some."""
        self._respect_cap()
        try:
            return self._commit(runs)
        except StorageFull:
            return self._commit(runs, otherwise=True)

    def _commit(
        self,
        runs: Sequence[Run] = (),
        advance: tuple[str, int, Mapping[str, bytes | None]] | None = None,
        *,
        otherwise: bool = False,
    ) -> list[Group]:
        head, groups, packed = self._written, list[Group](), list[Row[list[bytes]]]()
        for part in rows.parts(runs):
            packed.append(pack(head + 1, part, google_crc32c.extend))
            groups.append(Group(head + 1, head + packed[-1].records, tuple(part)))
            head = groups[-1].last
        places = self._segments.place([row.frames for row in packed], otherwise=otherwise)
        moved = {n: seq for n, seq in self._readers.items() if self._durable.get(n) != seq}
        write = self._writer.execute
        try:
            write("BEGIN IMMEDIATE")
            for row, place in zip(packed, places, strict=True):
                rows.insert(self._writer, row, place)
            for name, seq in moved.items():
                write(rows.MOVE, (name, seq, self._states.get(name)))
            if advance:
                reader, seq, items = advance
                write(rows.MOVE, (reader, seq, None))
                for item, value in items.items():
                    if value is None:
                        write("DELETE FROM items WHERE reader = ? AND name = ?", (reader, item))
                    else:
                        write("INSERT OR REPLACE INTO items VALUES (?,?,?)", (reader, item, value))
            write("COMMIT")
        except apsw.Error as error:
            roll_back(self._writer)
            refuse(error)
        self._written = head
        self._durable.update(moved)
        if advance:
            # Here, and not where it is awaited: whoever waits may be cancelled meanwhile.
            self._durable[advance[0]] = self._readers[advance[0]] = advance[1]
        whole = any(places) and self._segments.keep(packed[-1].first)
        fold_behind(self._writer, self._wal.pages, at_once=whole)
        return groups

    def _respect_cap(self) -> None:
        """Refuse to grow past the cap; what was delivered makes room first, horizon or not."""
        if self._used() >= self._settings.max_bytes:
            self._make_room()
            if self._used() >= self._settings.max_bytes:
                raise StorageFull(
                    f"the journal has reached its cap of {self._settings.max_bytes} bytes, and what"
                    " it holds is not yet delivered"
                )

    def _make_room(self) -> None:
        """Delete all that was delivered, horizon or not, as far as the disk lets us.

        The file keeps what is freed, lest others take it; so does the WAL, which begins anew.
        """
        spend = partial(self._reserve.spend, spare=_FOR_ALERTS)
        try:
            # The WAL has room then for what follows.
            fold(self._writer)
            if self._readers != self._durable:
                spend(self._commit)
            again = True
            while again:
                again = spend(partial(self._trim, everything=True))
                spend(partial(fold, self._writer, may_grow=True))
        except StorageFull:
            # It is tried again with the next write.
            return

    # Trimming

    def _tidy(self) -> None:
        self._reserve.fill()
        delivered = min(self._durable.values(), default=0)
        self._cache.let_go(delivered, self._written)
        self._segments.let_go(rows.passed(self._writer, delivered))

    def _used(self) -> int:
        pages: int = one(self._writer, "PRAGMA page_count")
        free: int = one(self._writer, "PRAGMA freelist_count")
        return (pages - free) * PAGE_BYTES + self._segments.used

    def _trim(self, *, everything: bool = False) -> bool:
        """Delete a few groups that nobody needs; say whether to call again."""
        try:
            used = self._used()
            self._metrics.journal_measured(used, self.head)
            delivered = min(self._durable.values(), default=0)
            over = used > self._settings.replay_bytes
            expired = self._marks.expired(self.head)
            limit = delivered if everything or over else min(delivered, expired)
            most = _ROOM_ROWS if everything else _TRIM_ROWS
            old = list(self._writer.execute(_OLD, (limit, most)))
            if old:
                rows.delete(self._writer, *old[-1])
            # Also without: a crash may have come between the two.
            self._segments.drop(rows.oldest(self._writer), keep_all=everything)
            if not old:
                return False
            if not everything:
                # Each row of the answer is a page given back: it must be read to the end.
                list(self._writer.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})"))
        except apsw.Error as error:
            refuse(error)
        fold_behind(self._writer, self._wal.pages)
        return len(old) == most or (over and not everything)

    def close(self) -> None:
        """Finish what is in progress and close the file."""
        self._write_thread.shutdown()
        self._read_thread.shutdown()
        self._reader.close()
        self._items.close()
        self._writer.close()
        self._cache.close()
        self._segments.close()
