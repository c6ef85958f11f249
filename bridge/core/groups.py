"""How runs of records are written as one row of the journal, and read back.

A row holds: the number of its first record, how many there are, `head`, `frames`, and a CRC32C
over all of these.

    head      per run: received_ns int64, count uint32, bytes uint32, peer length uint8, peer
    frames    the runs' frames, one after the other, as they stood on the wire

A row whose checksum, sizes or counts do not agree becomes a `Group` that is `damaged`: its numbers
are still accounted for, and no wrong payload ever leaves this module.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from bridge.core.framing import frame
from bridge.model import Group, Kind, RecordType, Run

__all__ = ["Frames", "Row", "framing_run", "own_run", "pack", "unpack"]

_RUN = struct.Struct("<qIIB")
_NUMBERS = struct.Struct("<QI")
_MOST_RECORDS = 2**32 - 1

Checksum = Callable[[int, bytes], int]
"""Continues a CRC32C: (checksum so far, bytes) -> checksum."""


class Frames(Protocol):
    """Bytes that may be somewhere else, and come in slices."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> bytes: ...


F_co = TypeVar("F_co", covariant=True)


class Row(NamedTuple, Generic[F_co]):
    """One row of the journal's table of groups."""

    first: int
    records: int
    head: bytes
    frames: F_co
    checksum: int


def own_run(kind: Kind, message: bytes, received_ns: int) -> Run:
    """Return a run with one message of the bridge's own."""
    payload = kind.value.encode() + b"\0" + message
    return Run("bridge", received_ns, 1, frame(payload, RecordType.OWN))


def framing_run(peer: str, reason: str, sample: bytes, received_ns: int) -> Run:
    """Return a run that tells of bytes which were no frame."""
    payload = reason.encode() + b"\0" + sample
    return Run(peer, received_ns, 1, frame(payload, RecordType.FRAMING))


def pack(first: int, runs: Sequence[Run], extend: Checksum) -> Row[list[bytes]]:
    """Return the row that holds `runs`, whose first record has the number `first`.

    Its frames are in pieces, those of each run.
    """
    parts = []
    for run in runs:
        peer = run.peer.encode()
        parts.append(_RUN.pack(run.received_ns, run.records, len(run.frames), len(peer)) + peer)
    head = b"".join(parts)
    frames = [run.frames for run in runs]
    count = sum([run.records for run in runs])
    checksum = extend(extend(0, _NUMBERS.pack(first, count)), head)
    for each in frames:
        checksum = extend(checksum, each)
    return Row(first, count, head, frames, checksum)


def unpack(row: Row[Frames], last: int, extend: Checksum) -> Group:
    """Return the group that `row` holds, or a damaged one of the same numbers.

    `last` is where the next row says that it ends: its own count may be what is damaged.
    """
    first, count, head, frames, checksum = row
    if last != first + count - 1 or not 0 < count <= _MOST_RECORDS:
        return Group(first, last, (), f"{count} records are told where {last - first + 1} must be")
    found = extend(extend(0, _NUMBERS.pack(first, count)), head)
    runs, taken = [], 0
    for received_ns, records_, size, peer in _told(head, len(frames)):
        part = frames[taken : taken + size]
        found = extend(found, part)
        runs.append(Run(peer, received_ns, records_, part))
        taken += size
    if found != checksum or taken != len(frames):
        return Group(first, last, (), "the checksum does not match")
    return Group(first, last, tuple(runs))


def _told(head: bytes, size: int) -> list[tuple[int, int, int, str]]:
    """Return what `head` tells of runs of `size` bytes in all; nothing where it is damaged."""
    told, at = [], 0
    try:
        while at < len(head):
            received_ns, records_, length, peer_size = _RUN.unpack_from(head, at)
            at += _RUN.size
            told.append((received_ns, records_, length, head[at : at + peer_size].decode()))
            at += peer_size
    except (struct.error, UnicodeDecodeError):
        return []
    return told if sum([length for _, _, length, _ in told]) == size else []
