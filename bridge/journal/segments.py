"""The frames of large commits lie in files of their own, the segments; the database says where.

Through SQLite each byte is written twice, into the WAL and into the file (docs/decisions/0017). Here it
is written once, and synced before the transaction that refers to it is committed. Nothing refers to
what a crash leaves behind it: each start begins a segment anew, so that is never written over.

A segment is given up whole, when no row refers to it any more, and is used again for the next one: on
a full disk others do not get its room, and its pages need not be found anew.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import NamedTuple, NoReturn

from bridge.errors import StorageDamaged, StorageFull, StorageUnusable
from bridge.journal.room import is_short
from bridge.settings import JournalSettings

__all__ = ["FEW_SPARES", "Place", "Referred", "Segments", "segment_path"]

_WHOLE_BYTES, _FEWEST = 16 * 1024 * 1024, 8
"""Size of a segment; where the cap is low they are smaller, for room comes back by the segment."""

FEW_SPARES = 2
"""Segments that are kept to be used again while the disk has room: the one that is next, and one more."""

_PAGE_BYTES = 4096
"""Each commit begins at a multiple: a page of a segment that is used again need not be read first."""

_BEGIN_BYTES = 1024 * 1024
"""Of a commit: so much is written, then the disk begins with it, so that there is less to wait for."""

_LIVE, _SPARE, _DIGITS = "segment-", "spare-", 12
_sync_data = getattr(os, "fdatasync", os.fsync)


class Place(NamedTuple):
    """Where the frames of a row are."""

    segment: int
    at: int
    """Bytes in front of them."""
    size: int


def segment_path(folder: Path, number: int) -> Path:
    """Return the path of a segment of the journal in `folder`."""
    return folder / f"{_LIVE}{number:0{_DIGITS}d}"


class Referred(NamedTuple):
    """What rows tell of a segment."""

    last_row: int
    """Number of the first record of the last row that refers to it."""
    end: int
    """Where the last of their frames end."""


class Segments:
    """Those of a journal, for the thread that writes."""

    def __init__(
        self, settings: JournalSettings, referred: Mapping[int, Referred], last_row: int
    ) -> None:
        """`referred` is what rows tell at the start, by segment; `last_row` begins with that record.

        A segment of which no row tells may be one whose rows are damaged: it is kept as long as any of
        the rows that there are.

        Raises:
            StorageUnusable: the folder cannot be read.
        """
        self._folder = folder = settings.dir
        self._large_bytes = settings.large_bytes
        self._whole_bytes = min(_WHOLE_BYTES, settings.max_bytes // _FEWEST)
        """A segment that has so many is not written on."""
        try:
            self._entries = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            sizes = _sizes(folder, _LIVE)
            self._spares = _sizes(folder, _SPARE)
            """Size by number; a number is given once, and never to another segment."""
        except OSError as error:
            raise StorageUnusable(f"cannot read {folder}: {error.strerror}") from error
        self._live = {
            number: Referred(seen.last_row, min(max(seen.end, 0), size))
            if (seen := referred.get(number))
            else Referred(last_row, size)
            for number, size in sizes.items()
        }
        self.used = sum(each.end for each in self._live.values())
        """Bytes of those that rows refer to, or did until lately."""
        self._last = max((0, *sizes, *self._spares, *referred))
        self._file: int | None = None
        """The one that is written."""
        self._end = self._taken_to = 0
        """Bytes of it that rows refer to; and with what is being committed."""
        self._let_go = (self._last + 1, 0)
        """Segment and place up to which the page cache was told to let go."""

    def place(
        self, frames: Sequence[list[bytes]], *, otherwise: bool = False
    ) -> Sequence[Place | None]:
        """Write and sync the frames of a commit's rows if they are many, or `otherwise` if they are few.

        Few are taken for many where room is short and there are spares: the database has no such room.
        Returns where those of each row are, None for what belongs into the row itself. They are let
        stand by `keep`.

        Raises:
            StorageFull: there is no room, or they could not be written. It can be tried again.
            StorageDamaged: they could not be synced.
        """
        least = 0 if self._spares and is_short(self._folder) else self._large_bytes
        are_many = sum([len(each) for row in frames for each in row]) >= least
        if not frames or are_many == otherwise:
            return [None] * len(frames)
        if self._file is not None and self._end < self._whole_bytes:
            try:
                return self._written(frames)
            except StorageFull:
                if not self._spares:
                    raise
        # A spare has its room already, where a segment would have to grow.
        self._begin()
        try:
            return self._written(frames)
        except StorageFull:
            self._give_up(self._last)
            raise

    def keep(self, last_row: int) -> bool:
        """Note that a commit stands whose last row begins with that record.

        Returns whether the segment is whole with it.
        """
        before, self._end = self._end, self._taken_to
        self._live[self._last] = Referred(last_row, self._end)
        self.used += self._end - before
        return before < self._whole_bytes <= self._end

    def drop(self, kept: int | None, *, keep_all: bool = False) -> None:
        """Give up the segments of which all rows are gone; some are used again, all if room is short.

        `kept` is the record with which the first row begins, None where there is no row. What is gone
        must be gone from the disk.

        Raises:
            StorageFull: the folder cannot be changed.
        """
        gone = [each for each, (last, _) in self._live.items() if kept is None or last < kept]
        for number in gone:
            self._give_up(number)
        while len(self._spares) > FEW_SPARES and not (keep_all or is_short(self._folder)):
            number = min(self._spares, key=self._spares.__getitem__)
            try:
                self._path(_SPARE, number).unlink(missing_ok=True)
            except OSError as error:
                _refuse(error)
            del self._spares[number]

    def let_go(self, passed: tuple[int, int]) -> None:
        """Let the page cache go of what is in front of that segment and place, if written since the start."""
        if passed <= self._let_go:
            return
        for number, (_, end) in self._live.items():
            size = passed[1] if number == passed[0] else end
            # Advice for no bytes would be for all of them.
            if size and self._let_go[0] <= number <= passed[0]:
                with suppress(OSError):
                    file = os.open(segment_path(self._folder, number), os.O_RDONLY | os.O_CLOEXEC)
                    try:
                        _let_go(file, 0, size)
                    finally:
                        os.close(file)
        self._let_go = passed

    def _begin(self) -> None:
        self._leave()
        number = self._last + 1
        path = segment_path(self._folder, number)
        try:
            self._take_spare(path)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            _refuse(error)
        self._last = number
        self._live[number] = Referred(0, 0)
        _sync(self._entries)

    def _take_spare(self, path: Path) -> None:
        """Let the largest spare be the segment at `path`, if there is one."""
        while self._spares:
            number = max(self._spares, key=self._spares.__getitem__)
            del self._spares[number]
            # It may have been deleted, by one who is short of room.
            with suppress(FileNotFoundError):
                self._path(_SPARE, number).rename(path)
                return

    def _give_up(self, number: int) -> None:
        """Let a segment be a spare."""
        if number == self._last:
            self._leave()
        path, spare = segment_path(self._folder, number), self._path(_SPARE, number)
        try:
            with suppress(FileNotFoundError):
                path.rename(spare)
                self._spares[number] = spare.stat().st_size
        except OSError as error:
            _refuse(error)
        self.used -= self._live.pop(number).end

    def _path(self, prefix: str, number: int) -> Path:
        return self._folder / f"{prefix}{number:0{_DIGITS}d}"

    def _written(self, frames: Sequence[list[bytes]]) -> list[Place]:
        assert self._file is not None
        places, at = [], self._end
        for each in frames:
            places.append(Place(self._last, at, sum(map(len, each))))
            at += places[-1].size
        padding = bytes(-at % _PAGE_BYTES)
        before = os.fstat(self._file).st_size
        try:
            _write(self._file, [*chain.from_iterable(frames), padding], self._end)
        except OSError as error:
            # Its room is none of the feed's: it may have come from the reserve.
            with suppress(OSError):
                os.ftruncate(self._file, before)
            _refuse(error)
        _sync(self._file)
        self._taken_to = at + len(padding)
        return places

    def _leave(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None
        self._end = self._taken_to = 0

    def close(self) -> None:
        """Close what is open."""
        self._leave()
        os.close(self._entries)


def _sizes(folder: Path, prefix: str) -> dict[int, int]:
    found = {path.name.removeprefix(prefix): path for path in folder.glob(f"{prefix}*")}
    return {int(name): path.stat().st_size for name, path in found.items() if name.isdecimal()}


def _write(file: int, pieces: list[bytes], at: int) -> None:
    begun = at
    for piece in pieces:
        left = memoryview(piece)
        while left:
            done = os.pwrite(file, left, at)
            left, at = left[done:], at + done
        if at - begun >= _BEGIN_BYTES:
            _let_go(file, begun, at - begun)
            begun = at


def _let_go(file: int, at: int, size: int) -> None:
    """Tell the page cache that these are not needed: what is written leaves it, what is not is begun."""
    if hasattr(os, "posix_fadvise"):
        # It is advice: a file system that does not take it is no reason to end.
        with suppress(OSError):
            os.posix_fadvise(file, at, size, os.POSIX_FADV_DONTNEED)


def _sync(file: int) -> None:
    try:
        _sync_data(file)
    except OSError as error:
        # Nobody knows then what is on the disk, and a later sync may succeed all the same.
        raise StorageDamaged(f"the journal could not be synced: {error}") from error


def _refuse(error: OSError) -> NoReturn:
    raise StorageFull(f"the journal could not be written: {error}") from error
