"""Tells in which records the process died, and which of them nobody is to decode again.

Before work decodes records it marks them as in flight, on a page that outlives the process. The mark
goes when the work is through; it is never there while the work waits for anything, so there is one
at most. A mark that is found at the start is where the process died: these records are suspects from
then on, and decoded one by one. A record that was in flight at three crashes, and that the same work
has not come through in between, is quarantined: a dead letter takes its place.

One page, in place, little-endian:

    mark         first, last, work: uint64 each; zeros when nothing is in flight
    checksum     uint32, CRC32 of all that follows
    head         the journal's epoch, 16 bytes; how many suspects and quarantined, uint16 each
    suspects     first, last: uint64 each; work, crashes: uint8 each
    quarantined  uint64 each

Whatever the page holds, nothing is raised: what does not agree, or is of another journal, counts as
empty.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import NamedTuple

from bridge.core.framing import frame, split_frames
from bridge.model import Group, Run

__all__ = ["MOST_CRASHES", "PAGE_BYTES", "Crash", "Flight", "Work"]

PAGE_BYTES = 4096
MOST_CRASHES = 3

_MOST_SUSPECTS = 30
_MOST_QUARANTINED = 400
"""The oldest are forgotten beyond it: the page is full, and they are long trimmed."""

_MARK = struct.Struct("<QQQ")
_CHECKSUM = struct.Struct("<I")
_HEAD = struct.Struct("<16sHH")
_SUSPECT = struct.Struct("<QQBB")
_NUMBER = struct.Struct("<Q")
_BODY = _MARK.size + _CHECKSUM.size
_NOTHING = bytes(_MARK.size)


class Work(IntEnum):
    """What decodes. What one comes through, the other may still die of."""

    TRACKING = 1
    RENDERING = 2


class _Span(NamedTuple):
    first: int
    last: int
    work: int


class Crash(NamedTuple):
    """Where the process before died: work on the records `first` to `last`."""

    first: int
    last: int
    work: Work
    crashes: int
    """How many there were in these records by now."""
    is_quarantined: bool


class Flight:
    """What is in flight, on a page."""

    def __init__(self, page: memoryview, epoch: str, head: int) -> None:
        """Take up what the process before left on `page`, of `PAGE_BYTES`.

        Numbers are those of the journal `epoch`, whose last record is `head`.
        """
        self._page = page
        self._epoch = epoch.encode()[:16].ljust(16, b"\0")
        self._suspects: dict[_Span, int] = {}
        self.quarantined: set[int] = set()
        """Numbers of the records that are not to be decoded."""
        self._load(head)
        self.crash = self._died(head)
        """The last one, where the process before ended in one."""
        self._save()

    def begin(self, work: Work, group: Group) -> None:
        """Mark the records of `group` as in flight."""
        _MARK.pack_into(self._page, 0, group.first, group.last, work)

    def end(self, work: Work, group: Group) -> None:
        """Take the mark away: `work` is through. After an error it stays, for that is a crash."""
        self._page[: _MARK.size] = _NOTHING
        if self._suspects:
            self._clear(work, group)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Lift the mark while the work waits: what others die of is not these records' fault.

        Where the work is cancelled it stays lifted: then the process ends of something else.
        """
        mark = bytes(self._page[: _MARK.size])
        self._page[: _MARK.size] = _NOTHING
        try:
            yield
        except Exception:
            self._page[: _MARK.size] = mark
            raise
        self._page[: _MARK.size] = mark

    def each(self, work: Work, group: Group) -> Iterator[Group]:
        """Yield what of `group` may be decoded, each part in flight until the next is asked for."""
        for part in self.parts(group):
            if not self.bars(part):
                self.begin(work, part)
                yield part
                self.end(work, part)

    def bars(self, part: Group) -> bool:
        """Whether this part of a group is a quarantined record."""
        return bool(part.runs) and part.first in self.quarantined

    def parts(self, group: Group) -> Sequence[Group]:
        """Return `group` in the parts that are to be decoded at a time: records, if it is suspect."""
        if not self._suspects and not self.quarantined:
            return (group,)
        first, last = group.first, group.last
        is_suspect = any(_meet(each, group) for each in self._suspects)
        if is_suspect or any(first <= seq <= last for seq in self.quarantined):
            return _singles(group) or (group,)
        return (group,)

    @classmethod
    def unkept(cls) -> Flight:
        """Return one whose page does not outlive the process."""
        return cls(memoryview(bytearray(PAGE_BYTES)), "", 0)

    def stop(self) -> None:
        """Forget all suspects: the process ends in order."""
        self._suspects.clear()
        self._save()

    def _died(self, head: int) -> Crash | None:
        first, last, work = _MARK.unpack_from(self._page)
        if not 0 < first <= last <= head or work not in set(Work):
            return None
        died = _Span(first, last, work)
        over = [each for each in self._suspects if _meet(each, died)]
        crashes = 1 + sum(self._suspects[each] for each in over)
        is_quarantined = first == last and crashes >= MOST_CRASHES
        if is_quarantined:
            self.quarantined.add(first)
            for each in over:
                del self._suspects[each]
        else:
            own = [each for each in over if each.work == work]
            self._suspects[died] = 1 + sum(map(self._suspects.pop, own))
        return Crash(first, last, Work(work), crashes, is_quarantined)

    def _clear(self, work: Work, group: Group) -> None:
        over = [each for each in self._suspects if each.work == work and _meet(each, group)]
        for each in over:
            crashes = self._suspects.pop(each)
            if each.last > group.last:
                # Records are gone through in order: what is left of a suspect is its end.
                self._suspects[each._replace(first=group.last + 1)] = crashes
        if over:
            self._save()

    def _load(self, head: int) -> None:
        page = bytes(self._page)
        epoch, suspects, quarantined = _HEAD.unpack_from(page, _BODY)
        end = at = _BODY + _HEAD.size
        end += suspects * _SUSPECT.size + quarantined * _NUMBER.size
        (checksum,) = _CHECKSUM.unpack_from(page, _MARK.size)
        if end > PAGE_BYTES or checksum != zlib.crc32(page[_BODY:end]) or epoch != self._epoch:
            self._page[: _MARK.size] = _NOTHING
            return
        numbers = at + suspects * _SUSPECT.size
        for first, last, work, crashes in _SUSPECT.iter_unpack(page[at:numbers]):
            # A number above the head was cut off, and is another record's when it comes again.
            if last <= head:
                self._suspects[_Span(first, last, work)] = crashes
        self.quarantined = {seq for (seq,) in _NUMBER.iter_unpack(page[numbers:end]) if seq <= head}

    def _save(self) -> None:
        """Write all but the mark, which is taken away: at once, so that no crash counts twice."""
        suspects = list(self._suspects.items())[-_MOST_SUSPECTS:]
        numbers = sorted(self.quarantined)[-_MOST_QUARANTINED:]
        body = _HEAD.pack(self._epoch, len(suspects), len(numbers))
        body += b"".join([_SUSPECT.pack(*span, min(crashes, 255)) for span, crashes in suspects])
        body += b"".join(map(_NUMBER.pack, numbers))
        image = _NOTHING + _CHECKSUM.pack(zlib.crc32(body)) + body
        self._page[: len(image)] = image


def _meet(one: _Span, other: _Span | Group) -> bool:
    return one.first <= other.last and other.first <= one.last


def _singles(group: Group) -> list[Group]:
    found: list[Group] = []
    seq = group.first
    for run in group.runs:
        for type_, payload in split_frames(run.frames):
            one = Run(run.peer, run.received_ns, 1, frame(payload, type_))
            found.append(Group(seq, seq, (one,)))
            seq += 1
    return found
