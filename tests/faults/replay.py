"""Whether the tracker's state is what its records make of it, however often its bridge ended.

Beside each victim lives a tracker that never ends. It is given the same records, up to the number
at which the victim's durable state stands; then both must have the same state, and the journal's
own records must be what it said. With a grace that is never over nothing hangs on the clock but
the network's pace, and nothing on restarts but the cause that a gap is given: these are left out.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import apsw
import google_crc32c
import orjson
from google.protobuf import text_format

from bridge.core.framing import split_frames
from bridge.core.groups import unpack
from bridge.core.heights import Bounds
from bridge.journal.file import read_only
from bridge.journal.stored import stored
from bridge.metrics import Metrics
from bridge.model import Group, Kind, RecordType, Run
from bridge.pb.bridge.v1.block_receipt_pb2 import BlockReceipt
from bridge.pb.bridge.v1.gap_alert_pb2 import GapAlert
from bridge.stages.track import READER, Tracker
from tests.doubles import MemoryJournal
from tests.faults.records import OWN_PEER

__all__ = ["GRACE", "NO_JOURNAL_YET", "Replay"]

NO_JOURNAL_YET = (apsw.CantOpenError, apsw.SQLError, apsw.ReadOnlyError)
"""What reading says of a bridge that ended early: no file, no tables, or half a transaction that
made them, which only a writer can take back."""

_GRACE_SECONDS = 100_000
GRACE = {"BRIDGE_TRACKER__GRACE_SECONDS": str(_GRACE_SECONDS)}
"""Settings of a bridge whose tracker can be compared."""

_TRACK_SECONDS = 60
_SHOWN = 2
_GAP, _SEEN, _PACE = "heights/gap/", "seen/", "heights/pace"
_CAUSE, _TOLD = 2, 9
"""Places in a gap's item: its cause, and what was last told, in which the cause stands too."""

_POSITION = "SELECT seq FROM readers WHERE name = ?"
_ITEMS = "SELECT name, value FROM items WHERE reader = ?"


class Replay:
    """Compares the tracker of the journal in `folder`, of which nothing may be trimmed."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "journal.db"
        self._records = _Records()
        self._tracker = Tracker(
            self._records,
            Metrics(),
            network="main",
            bounds=Bounds(grace=_GRACE_SECONDS),
            tick_seconds=0.05,
        )
        self._written = _Said()
        self._read, self._later = 0, deque[Group]()
        self._position, self._items = 0, dict[str, bytes]()

    def look(self) -> None:
        """Read what came since the last time; the bridge may be running."""
        with suppress(*NO_JOURNAL_YET), closing(read_only(self._path)) as file, file:
            self._position = max((seq for (seq,) in file.execute(_POSITION, (READER,))), default=0)
            self._items = dict(file.execute(_ITEMS, (READER,)))
            with stored(file, self._read + 1) as found:
                for row, _ in found:
                    self._read = row.first
                    group = unpack(row, row.first + row.records - 1, google_crc32c.extend)
                    self._later.append(group)
                    self._written.take(run for run in group.runs if run.peer == OWN_PEER)

    async def differences(self) -> list[str]:
        """Return in what the victim was not the same as the replay when last looked at."""
        while self._later and self._later[0].last <= self._position:
            self._records.put(self._later.popleft())
        await self._track()
        then, now = _canonical(self._items), _canonical(dict(self._records.items(READER)))
        names = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
        found = [f"the tracker's {name} is not that of the replay" for name in names[:3]]
        said = self._records.said
        if self._written.events != said.events:
            more = _shown(self._written.events - said.events)
            less = _shown(said.events - self._written.events)
            found.append(
                "alerts or recovered commits are not those of the replay:"
                f" it has not said {more or 'nothing'}, and has said {less or 'nothing'} beside"
            )
        if self._written.receipts != said.receipts:
            found.append("receipts are not those of the replay")
        if twice := sum(count > 1 for count in self._written.each.values()):
            found.append(f"{twice} records of the tracker stand twice in the journal")
        return [f"record {self._position}: {sentence}" for sentence in found]

    async def _track(self) -> None:
        """Return when the replay's state is committed as of the position."""
        running = asyncio.create_task(self._tracker.run())
        try:
            async with asyncio.timeout(_TRACK_SECONDS):
                while self._records.position(READER) < self._position and not running.done():
                    await asyncio.sleep(0.01)
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
        del self._records.groups[:-1]


class _Said:
    """What trackers say, in a form that does not hang on how far a step went."""

    def __init__(self) -> None:
        self.events: set[bytes] = set()
        """Alerts, and recovered commits."""
        self.receipts: dict[int, bytes] = {}
        """The last one of each height: of those between, a step may leave some out."""
        self.each = Counter[bytes]()

    def take(self, runs: Iterable[Run]) -> None:
        for run in runs:
            for type_, payload in split_frames(run.frames):
                self.each[payload] += 1
                kind, _, content = payload.partition(b"\0")
                if type_ == RecordType.OWN and kind.decode() == Kind.BLOCK_RECEIPT:
                    self.receipts[BlockReceipt.FromString(content).height] = content
                else:
                    self.events.add(payload)


class _Records(MemoryJournal):
    """Those of the victim. What the tracker says is kept apart: the victim's are there already."""

    def __init__(self) -> None:
        super().__init__()
        self.said = _Said()

    async def _write(self, runs: Sequence[Run], **_: Any) -> int:
        self.said.take(runs)
        self.attempts.clear()
        return self.head


def _shown(payloads: set[bytes]) -> str:
    """Return the first of them for a person."""
    shown = []
    for payload in sorted(payloads)[:_SHOWN]:
        name, _, content = payload.partition(b"\0")
        if name.decode(errors="replace") == Kind.GAP_ALERT:
            text = text_format.MessageToString(GapAlert.FromString(content), as_one_line=True)
            shown.append(f"{name.decode()} {text}")
        else:
            shown.append(payload[:40].hex())
    return "; ".join(shown)


def _canonical(items: Mapping[str, bytes]) -> dict[str, object]:
    """Return the state without what hangs on steps, on the clock, and on restarts."""
    seen = b"".join(items[name] for name in sorted(items) if name.startswith(_SEEN))
    found: dict[str, object] = {_SEEN: seen}
    for name, value in items.items():
        if name.startswith(_GAP):
            gap = orjson.loads(value)
            found[name] = [each for place, each in enumerate(gap) if place not in {_CAUSE, _TOLD}]
        elif name != _PACE and not name.startswith(_SEEN):
            found[name] = value
    return found
