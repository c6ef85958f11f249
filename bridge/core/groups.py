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
from typing import NamedTuple

from bridge.core.framing import frame
from bridge.model import Group, Kind, RecordType, Run

__all__ = ["Row", "framing_run", "own_run", "pack", "unpack"]

_RUN = struct.Struct("<qIIB")
_NUMBERS = struct.Struct("<QI")
_MOST_RECORDS = 2**32 - 1

Checksum = Callable[[int, bytes], int]
"""Continues a CRC32C: (checksum so far, bytes) -> checksum."""


class Row(NamedTuple):
    """One row of the journal's table of groups."""

    first: int
    records: int
    head: bytes
    frames: bytes
    checksum: int


def own_run(kind: Kind, message: bytes, received_ns: int) -> Run:
    """Return a run with one message of the bridge's own."""
    payload = kind.value.encode() + b"\0" + message
    return Run("bridge", received_ns, 1, frame(payload, RecordType.OWN))


def framing_run(peer: str, reason: str, sample: bytes, received_ns: int) -> Run:
    """Return a run that tells of bytes which were no frame."""
    payload = reason.encode() + b"\0" + sample
    return Run(peer, received_ns, 1, frame(payload, RecordType.FRAMING))


def pack(first: int, runs: Sequence[Run], extend: Checksum) -> Row:
    """Return the row that holds `runs`, whose first record has the number `first`."""
    parts = []
    for run in runs:
        peer = run.peer.encode()
        parts.append(_RUN.pack(run.received_ns, run.records, len(run.frames), len(peer)) + peer)
    head = b"".join(parts)
    frames = runs[0].frames if len(runs) == 1 else b"".join([run.frames for run in runs])
    count = sum([run.records for run in runs])
    return Row(first, count, head, frames, _checksum(first, count, head, frames, extend))


def unpack(row: Row, last: int, extend: Checksum) -> Group:
    """Return the group that `row` holds, or a damaged one of the same numbers.

    `last` is where the next row says that it ends: its own count may be what is damaged.
    """
    first, count, head, frames, checksum = row
    if last != first + count - 1 or not 0 < count <= _MOST_RECORDS:
        return Group(first, last, (), f"{count} records are told where {last - first + 1} must be")
    if checksum != _checksum(first, count, head, frames, extend):
        return Group(first, last, (), "the checksum does not match")
    runs, at, taken = [], 0, 0
    while at < len(head):
        received_ns, records_, size, peer_size = _RUN.unpack_from(head, at)
        at += _RUN.size
        peer = head[at : at + peer_size].decode()
        at += peer_size
        runs.append(Run(peer, received_ns, records_, frames[taken : taken + size]))
        taken += size
    return Group(first, last, tuple(runs))


def _checksum(first: int, count: int, head: bytes, frames: bytes, extend: Checksum) -> int:
    return extend(extend(extend(0, _NUMBERS.pack(first, count)), head), frames)
