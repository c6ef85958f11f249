"""The page of `core.flight`: a file in the journal's folder, mapped into memory.

A crash of the process leaves it as it is, for it is the kernel's; and marking costs no system call. A
power cut may set it back, which costs a payload that kills a few more crashes and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from mmap import mmap
from pathlib import Path

from bridge import log
from bridge.core.flight import PAGE_BYTES, Crash, Flight
from bridge.metrics import Metrics

__all__ = ["open_flight"]

_NAME = "in-flight"

_log = log.get("journal")


@contextmanager
def open_flight(folder: Path, epoch: str, head: int, metrics: Metrics) -> Iterator[Flight]:
    """Open the page in `folder`, whose journal has that epoch and head, and say what it tells.

    An end without an error clears what is suspected. A page that cannot be kept is done without.
    """
    try:
        page = _mapped(folder / _NAME)
    except OSError as error:
        _log.warning("a payload that kills would not be told", file=_NAME, error=error.strerror)
        yield Flight.unkept()
        return
    with page, memoryview(page) as view:
        flight = Flight(view, epoch, head)
        metrics.quarantined(len(flight.quarantined))
        if flight.crash is not None:
            page.flush()
            _say(flight.crash)
        yield flight
        flight.stop()


def _mapped(path: Path) -> mmap:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if os.fstat(descriptor).st_size != PAGE_BYTES:
            # Written, not stretched: a page without a place on a full disk would be fatal.
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, bytes(PAGE_BYTES), 0)
        return mmap(descriptor, PAGE_BYTES)
    finally:
        os.close(descriptor)


def _say(crash: Crash) -> None:
    told = {"first": crash.first, "last": crash.last, "work": crash.work.name.lower()}
    if crash.is_quarantined:
        _log.error(
            "a record killed the process time and again, and is quarantined",
            **told,
            crashes=crash.crashes,
            remedy="Report its dead letter with the bytes; the feed goes on without it.",
        )
    else:
        _log.warning(
            "the process died within these records, they are decoded one by one",
            **told,
            crashes=crash.crashes,
        )
