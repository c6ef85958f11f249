"""The records of a group one by one, with their numbers, as tests look at them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from bridge.core.framing import split_frames
from bridge.model import Group, Run

__all__ = ["Record", "records"]


class Record(NamedTuple):
    """One numbered record of the journal."""

    seq: int
    type: int
    payload: bytes
    run: Run


def records(group: Group) -> Iterator[Record]:
    """Yield the records of `group` in order; none when it is damaged."""
    seq = group.first
    for run in group.runs:
        for type_, payload in split_frames(run.frames):
            yield Record(seq, type_, payload, run)
            seq += 1
