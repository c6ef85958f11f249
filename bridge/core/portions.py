"""Cuts what one commit made durable into portions: none is much work, or it is one large record.

A group holds whatever came while the commit before it was under way: many small events, large ones,
or both. Nobody is to render all of it at a stretch while others wait.
"""

from __future__ import annotations

from collections.abc import Iterator

from bridge.core.decode import is_light
from bridge.core.framing import HEADER_BYTES, split_frames
from bridge.model import Group, Run

__all__ = ["LARGE_BYTES", "is_heavy", "is_large", "portions"]

LARGE_BYTES = 256 * 1024
"""More than a receiver takes in one read; a record above it is a run of its own, or nearly."""


def is_large(group: Group) -> bool:
    """Say whether `group` is to be cut. Costs nothing per record."""
    return sum([len(run.frames) for run in group.runs]) > LARGE_BYTES


def is_heavy(part: Group) -> bool:
    """Say whether `part`, a portion, is one large record that may take long to decode."""
    return is_large(part) and not is_light(memoryview(part.runs[0].frames)[HEADER_BYTES:])


def portions(group: Group) -> Iterator[Group]:
    """Yield the records of `group` in order; a portion above `LARGE_BYTES` is one single record."""
    if not group.runs:
        yield group
    first = group.first
    for run in group.runs:
        for records, frames in _cut(run):
            part = Run(run.peer, run.received_ns, records, frames)
            yield Group(first, first + records - 1, (part,))
            first += records


def _cut(run: Run) -> Iterator[tuple[int, bytes]]:
    frames = run.frames
    if len(frames) <= LARGE_BYTES or run.records == 1:
        yield run.records, frames
        return
    begin = at = records = 0
    for _, payload in split_frames(frames):
        size = HEADER_BYTES + len(payload)
        if records and at + size - begin > LARGE_BYTES:
            yield records, frames[begin:at]
            begin, records = at, 0
        at += size
        records += 1
    yield records, frames[begin:]
