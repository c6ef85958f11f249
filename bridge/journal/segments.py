"""The frames of large commits lie in files of their own, the segments; the database says where.

Through SQLite each byte is written twice, into the WAL and into the file (docs/decisions/0017). Here it
is written once, and synced before the transaction that refers to it is committed. Nothing refers to
what a crash leaves behind it: each start begins a segment anew, so that is never written over.

A segment is given up whole, when no row refers to it any more, and is used again for the next one: on
a full disk others do not get its room, and its pages need not be found anew.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import NamedTuple, NoReturn

from bridge.errors import StorageDamaged, StorageFull, StorageUnusable

__all__ = ["FEW_SPARES", "Place", "Segments", "segment_path"]

FEW_SPARES = 2
"""Segments that are kept to be used again while the disk has room: the one that is next, and one more."""

_PAGE_BYTES = 4096
"""Each commit begins at a multiple: a page of a segment that is used again need not be read first."""

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


class Segments:
    """Those of the journal in `folder`, for the thread that writes.

    Raises:
        StorageUnusable: the folder cannot be read.
    """

    def __init__(self, folder: Path, whole_bytes: int) -> None:
        self._folder = folder
        self._whole_bytes = whole_bytes
        """A segment that has so many is not written on."""
        try:
            self._sizes = {
                int(path.name.removeprefix(_LIVE)): path.stat().st_size
                for path in sorted(folder.glob(_LIVE + "[0-9]" * _DIGITS))
            }
            self._spares = sorted(folder.glob(_SPARE + "[0-9]" * _DIGITS))
            self._entries = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise StorageUnusable(f"cannot read {folder}: {error.strerror}") from error
        self._last = max(self._sizes, default=0)
        self._file: int | None = None
        """The one that is written."""
        self._end = self._taken_to = 0
        """Bytes of it that rows refer to; and with what is being committed."""
        self._let_go = (self._last + 1, 0)
        """Segment and place up to which the page cache was told to let go."""

    @property
    def used(self) -> int:
        """Bytes of those that rows refer to, or did until lately."""
        return sum(self._sizes.values())

    def write(self, frames: Sequence[list[bytes]]) -> list[Place]:
        """Write and sync the frames of a commit's rows. They are let stand by `keep`.

        Raises:
            StorageFull: there is no room, or they could not be written. It can be tried again.
            StorageDamaged: they could not be synced.
        """
        if self._file is None or self._end >= self._whole_bytes:
            self._begin()
        try:
            return self._written(frames)
        except StorageFull:
            if not self._spares:
                raise
        # A spare has its room already, where the segment would have to grow.
        self._begin()
        return self._written(frames)

    def keep(self) -> bool:
        """Note that what was written last is committed; say whether the segment is whole with it."""
        before, self._end = self._end, self._taken_to
        return before < self._whole_bytes <= self._end

    def drop(self, oldest: int | None, spares: int) -> None:
        """Give up the segments in front of `oldest`, or all; keep so many to be used again.

        What referred to them must be gone from the disk.

        Raises:
            StorageFull: the folder cannot be changed.
        """
        given_up = [each for each in self._sizes if oldest is None or each < oldest]
        if self._file is not None and self._last in given_up:
            self._leave()
        try:
            for number in given_up:
                spare = self._folder / f"{_SPARE}{number:0{_DIGITS}d}"
                segment_path(self._folder, number).rename(spare)
                del self._sizes[number]
                self._spares.append(spare)
            while len(self._spares) > spares:
                self._spares.pop().unlink()
        except OSError as error:
            _refuse(error)

    def let_go(self, passed: tuple[int, int]) -> None:
        """Let the page cache go of what is in front of that segment and place, if written since the start."""
        if passed <= self._let_go or not hasattr(os, "posix_fadvise"):
            return
        for number in self._sizes:
            if self._let_go[0] <= number <= passed[0]:
                # It is advice: a file system that does not take it is no reason to end.
                with suppress(OSError):
                    self._advise(number, passed[1] if number == passed[0] else 0)
        self._let_go = passed

    def _advise(self, number: int, size: int) -> None:
        """Let go of the first `size` bytes of a segment; 0 for all."""
        file = os.open(segment_path(self._folder, number), os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(file, 0, size, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)

    def _begin(self) -> None:
        self._leave()
        number = self._last + 1
        path = segment_path(self._folder, number)
        try:
            if self._spares:
                self._spares[-1].rename(path)
                del self._spares[-1]
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._last = number
            self._sizes[number] = 0
        except OSError as error:
            _refuse(error)
        _sync(self._entries)

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
        self._sizes[self._last] = max(self._sizes[self._last], self._taken_to)
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


def _write(file: int, pieces: list[bytes], at: int) -> None:
    for piece in pieces:
        left = memoryview(piece)
        while left:
            done = os.pwrite(file, left, at)
            left, at = left[done:], at + done


def _sync(file: int) -> None:
    try:
        _sync_data(file)
    except OSError as error:
        # Nobody knows then what is on the disk, and a later sync may succeed all the same.
        raise StorageDamaged(f"the journal could not be synced: {error}") from error


def _refuse(error: OSError) -> NoReturn:
    raise StorageFull(f"the journal could not be written: {error}") from error
