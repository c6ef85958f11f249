"""The journal against a Python list: whatever is done to it, it holds what the list holds."""

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bridge.core.framing import frame
from bridge.journal import Journal, open_journal
from bridge.metrics import Metrics
from bridge.model import Run
from bridge.settings import JournalSettings
from tests.support.records import records

T = TypeVar("T")
READERS = ("one", "two")
payloads = st.lists(st.binary(max_size=20), min_size=1, max_size=4)
runs_of_payloads = st.lists(payloads, min_size=1, max_size=3)


class JournalAgainstList(RuleBasedStateMachine):
    """`kept` is the model: record n of the journal is `kept[n - 1]`."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="journal-model-"))
        self.kept: list[bytes] = []
        self.positions = dict.fromkeys(READERS, 0)
        self.items: dict[str, bytes] = {}
        self.oldest = 1

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run(work)

    @initialize(large_bytes=st.sampled_from([0, 30, 1 << 40]))
    def open(self, large_bytes: int) -> None:
        """Begin, with frames in segments: all, some, none; a segment takes a few commits."""
        self.large_bytes = large_bytes
        self.do(self._open())

    async def _open(self) -> None:
        self.resources = AsyncExitStack()
        settings = JournalSettings(dir=self.folder, replay_bytes=0, large_bytes=self.large_bytes)
        self.journal: Journal = await self.resources.enter_async_context(
            open_journal(settings, Metrics())
        )
        self.journal._segments._whole_bytes = 3 * 4096
        self.journal.register(READERS)

    def runs(self, batches: list[list[bytes]]) -> list[Run]:
        self.kept += [payload for batch in batches for payload in batch]
        return [Run("tcp/1", 7, len(batch), b"".join(map(frame, batch))) for batch in batches]

    @rule(batches=runs_of_payloads)
    def append(self, batches: list[list[bytes]]) -> None:
        assert self.do(self.journal.append(self.runs(batches))) == len(self.kept)

    @rule(reader=st.sampled_from(READERS), part=st.floats(0, 1))
    def confirm(self, reader: str, part: float) -> None:
        before = self.positions[reader]
        seq = before + round((len(self.kept) - before) * part)
        self.journal.checkpoint(reader, seq)
        self.positions[reader] = seq

    @rule(
        part=st.floats(0, 1),
        items=st.dictionaries(st.sampled_from("abc"), st.none() | st.binary(max_size=5)),
        batches=runs_of_payloads,
    )
    def derive(
        self, part: float, items: dict[str, bytes | None], batches: list[list[bytes]]
    ) -> None:
        self.confirm("two", part)
        seq = self.positions["two"]
        self.do(self.journal.advance("two", seq, self.runs(batches), items))
        changed = {**self.items, **items}
        self.items = {name: value for name, value in changed.items() if value is not None}

    @rule()
    def reopen(self) -> None:
        async def close() -> None:
            await self.journal.flush()
            await self.resources.aclose()

        self.do(close())
        self.do(self._open())

    @rule(everything=st.booleans())
    def trim(self, *, everything: bool) -> None:
        async def trim() -> None:
            await self.journal.flush()
            work = partial(self.journal._trim, everything=everything)
            while await self.journal._in(self.journal._write_thread, work):
                pass

        self.do(trim())
        found = self.journal._read(0, 0)
        self.oldest = found[0].first if found else 1
        # Whole groups go, only behind every reader, and the newest never.
        assert self.oldest <= min(self.positions.values()) + 1

    @invariant()
    def it_holds_what_the_list_holds(self) -> None:
        journal = self.journal
        assert journal.head == len(self.kept)
        assert {name: journal.position(name) for name in READERS} == self.positions
        assert dict(journal.items("two")) == self.items
        # From the disk, and not what is kept in memory.
        groups = journal._read(0, 1 << 40)
        found = [(r.seq, r.payload) for group in groups for r in records(group)]
        assert found == list(enumerate(self.kept, 1))[self.oldest - 1 :]

    @invariant()
    def a_reader_finds_what_it_has_not_confirmed(self) -> None:
        for seq in self.positions.values():
            groups = self.do(self.journal.read(seq, 0))
            assert bool(groups) == (seq < len(self.kept))
            if groups:
                assert groups[0].first <= seq + 1 <= groups[0].last

    def teardown(self) -> None:
        self.do(self.resources.aclose())
        self.loop.close()
        shutil.rmtree(self.folder)


TestJournalAgainstList = JournalAgainstList.TestCase
TestJournalAgainstList.settings = settings(max_examples=60, stateful_step_count=20)
