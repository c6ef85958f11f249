"""Cuts what one commit made durable into portions: none is much work, or it is one large record.

A group holds whatever came while the commit before it was under way: many small events, large ones,
or both. Nobody is to render all of it at a stretch while others wait.
"""

from __future__ import annotations

from collections.abc import Iterator

from bridge.core.decode import is_light
from bridge.core.framing import HEADER_BYTES, size_of_frame, whole_frames
from bridge.model import Group, Run

__all__ = ["LARGE_BYTES", "is_heavy", "is_large", "portions", "weight"]

LARGE_BYTES = 256 * 1024
"""More than a receiver takes in one read; a record above it is a run of its own, or nearly."""

_LEAST_BYTES = 960
"""What a record is counted for at least: it has attributes too, and objects that hold it."""


def weight(part: Group) -> int:
    """Return about how many bytes the messages of `part` take."""
    records = part.last - part.first + 1
    size = sum([len(run.frames) for run in part.runs])
    return max(size, records * _LEAST_BYTES)


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
        return
    first, runs, size = group.first, list[Run](), 0
    for run in group.runs:
        for records, frames in _cut(run):
            if runs and size + len(frames) > LARGE_BYTES:
                part = _group(first, runs)
                yield part
                first, runs, size = part.last + 1, [], 0
            runs.append(Run(run.peer, run.received_ns, records, frames))
            size += len(frames)
    yield _group(first, runs)


def _group(first: int, runs: list[Run]) -> Group:
    return Group(first, first + sum([run.records for run in runs]) - 1, tuple(runs))


def _cut(run: Run) -> Iterator[tuple[int, bytes]]:
    frames = run.frames
    if len(frames) <= LARGE_BYTES or run.records == 1:
        yield run.records, frames
        return
    view, at = memoryview(frames), 0
    while at < len(frames):
        records, size = whole_frames(view[at : at + LARGE_BYTES], LARGE_BYTES)
        if not records:
            # It is too large, or no feed's.
            records, size = 1, size_of_frame(frames, at)
        yield records, frames[at : at + size]
        at += size
