"""How soon a bridge is ready that was killed with a large journal, of which nothing is delivered."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

from tests.bench.bridges import BenchBridge, Untrue
from tests.bench.ground import MB, Ground, environ_of, sending

__all__ = ["measure"]

_BUILD_SECONDS = 900


def measure(ground: Ground) -> dict[str, float]:
    """Return the size (GB), the seconds until it receives and until all is ready, the memory (MB)."""
    feed = ground.feed("reveal")
    times = math.ceil(ground.options.journal_bytes / feed.size)
    environ = environ_of(ground, "nats", "protobuf")
    with ground.journal() as folder:
        ground.say(f"start: making a journal of {ground.options.journal_bytes / 1e9:g} GB")
        _build(ground, folder, feed.frames, times)
        size = sum(path.stat().st_size for path in _files(folder))
        found = ground.repeat("start", lambda: _run(ground, folder, environ))
    ground.forget("reveal")
    return {"gigabytes": round(size / 1e9, 2), **found}


def _build(ground: Ground, folder: Path, frames: list[bytes], times: int) -> None:
    environ = environ_of(ground, "journal", "protobuf")
    with (
        BenchBridge(folder, environ, ground.cores) as bridge,
        sending(frames, bridge.feed_port, times=times),
    ):
        deadline = time.monotonic() + _BUILD_SECONDS
        while bridge.progress().accepted < len(frames) * times:
            if time.monotonic() > deadline:
                raise Untrue("the journal is not made in time")
            time.sleep(0.2)


def _files(folder: Path) -> list[Path]:
    return [*folder.glob("journal.db*"), *folder.glob("segment-*")]


def _run(ground: Ground, folder: Path, environ: dict[str, str]) -> dict[str, float]:
    for path in _files(folder):
        # As after the machine was started: what is read comes from the disk.
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with BenchBridge(folder, environ, ground.cores) as bridge:
        receiving = bridge.seconds
        return {
            "receiving_seconds": receiving,
            "ready_seconds": bridge.wait_ready(),
            "peak_mb": bridge.peak_bytes() / MB,
        }
