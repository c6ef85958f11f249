"""Recordings as tests make them and look at them, and a disk that is full."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

from bridge.recording import Record, Transport, What
from bridge.recording.format import Encoder

__all__ = ["datagrams_of", "encoded", "files_grow_to", "streams_of"]


def encoded(records: list[Record], *, flush_each: int = 0) -> bytes:
    """Return the file of `records`, with a block after each so many."""
    encoder = Encoder()
    written = encoder.begin()
    for number, record in enumerate(records, 1):
        written += encoder.add(record)
        if flush_each and number % flush_each == 0:
            written += encoder.flush()
    return written + encoder.end()


def streams_of(records: list[Record]) -> list[bytes]:
    """Return what was read of each connection."""
    found: dict[int, bytes] = {}
    for record in records:
        if record.transport is Transport.TCP and record.what in {What.OPEN, What.READ}:
            data = record.data if record.what is What.READ else b""
            found[record.connection] = found.get(record.connection, b"") + data
    return list(found.values())


def datagrams_of(records: list[Record]) -> list[bytes]:
    """Return every datagram, in order."""
    return [record.data for record in records if record.what is What.DATAGRAM]


@contextmanager
def files_grow_to(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size` during the body: EFBIG."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
