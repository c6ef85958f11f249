"""A tracker that ends behind any of its writes: what it says is said once all the same (D4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from bridge.core.framing import split_frames
from bridge.model import Run
from bridge.stages.track import READER
from tests.doubles import MemoryJournal
from tests.support.waiting import during
from tests.unit.test_track import live, minute, replayed, run, told, tracker_of

_FEED = [
    run(live(1), minute(2)),
    run(live(5), minute(6)),
    run(replayed(2), live(6), minute(7)),
    run(replayed(3), replayed(4)),
]


class _Remembering(MemoryJournal):
    """Keeps a copy of itself behind each write: what a crash there leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.left: list[MemoryJournal] = []

    async def append(self, runs: Sequence[Run], **options: Any) -> int:
        head = await super().append(runs, **options)
        self._keep()
        return head

    async def advance(
        self, reader: str, seq: int, runs: Sequence[Run], items: Mapping[str, bytes | None]
    ) -> None:
        await super().advance(reader, seq, runs, items)
        self._keep()

    def _keep(self) -> None:
        copy = MemoryJournal()
        copy.groups, copy.positions = list(self.groups), dict(self.positions)
        copy.kept = {reader: dict(items) for reader, items in self.kept.items()}
        self.left.append(copy)


async def _go_on(journal: MemoryJournal) -> None:
    """Track to the end what is there and what is still to come of the feed."""
    tracker = tracker_of(journal)
    async with during(tracker.run()):
        for each in _FEED:
            if each not in journal.runs:
                await journal.append([each])
            await tracker.caught_up()
        await tracker.caught_up()


def _said(journal: MemoryJournal) -> Counter[bytes]:
    """Return how often each record of the tracker is there."""
    return Counter(
        payload
        for each in journal.runs
        if each not in _FEED
        for _, payload in split_frames(each.frames)
    )


async def test_after_a_crash_behind_any_write_each_word_is_said_once() -> None:
    journal = _Remembering()
    await _go_on(journal)
    assert [each.status for each in told(journal)].count("opened") == 1
    assert journal.position(READER) > 0
    assert len(journal.left) > len(_FEED), "the tracker wrote too"
    for left in journal.left:
        before = len(left.groups)
        await _go_on(left)
        said = _said(left)
        assert max(said.values()) == 1, (
            f"after {before} groups {said.most_common(1)} was said twice"
        )
        assert [each.status for each in told(left)].count("opened") == 1
