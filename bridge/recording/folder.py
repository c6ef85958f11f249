"""Folders of recorded feeds, as `captures/` has them, read as a recording.

Of each part K: `partK-conn-NN.bin`, the bytes of a TCP connection, with a `.jsonl` beside it (open,
a line per read, close, reset or stopped); `partK-datagrams.jsonl`, a line per datagram.
"""

from __future__ import annotations

import base64
import heapq
import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from bridge.errors import RecordingDamaged, UsageError
from bridge.recording.file import FileReader, FileWriter, Source
from bridge.recording.format import MAX_DATA, Record, Transport, What

__all__ = ["FolderReader", "import_folder", "open_recording"]

_ENDS = {"close": What.CLOSE, "reset": What.RESET, "stopped": What.STOPPED}
_LATEST_NS = 2**63


def open_recording(path: Path) -> Source:
    """Return the recording at `path`, a file or a folder.

    Raises:
        UsageError: there is none.
    """
    return FolderReader(path) if path.is_dir() else FileReader(path)


def import_folder(folder: Path, path: Path, *, force: bool = False) -> None:
    """Write the recording of `folder` to a file at `path`.

    Raises:
        UsageError: there is no such recording, or `path` cannot be made.
        RecordingDamaged: the folder is damaged; what is before is written.
        RecordingUnwritable: the file cannot grow.
    """
    source = FolderReader(folder)
    with FileWriter(path, force=force) as file:
        for record in source:
            file.add(record)


class FolderReader:
    """A folder as a source: its connections side by side, in order of time."""

    def __init__(self, folder: Path) -> None:
        """Look what is in it.

        Raises:
            UsageError: nothing that was recorded.
        """
        self._streams = sorted(folder.glob("part*-conn-*.jsonl"))
        self._datagrams = sorted(folder.glob("part*-datagrams.jsonl"))
        if not self._streams and not self._datagrams:
            raise UsageError(f"{folder} holds no part*-conn-*.jsonl and no part*-datagrams.jsonl")
        binaries = (path.with_suffix(".bin") for path in self._streams)
        files = [path for path in (*binaries, *self._datagrams) if path.exists()]
        self.size = sum(path.stat().st_size for path in files)
        self.done = 0
        self._numbers = count(1)

    def __iter__(self) -> Iterator[Record]:
        sources = [self._stream(path) for path in self._streams]
        sources += [self._peers(path) for path in self._datagrams]
        try:
            yield from heapq.merge(*sources, key=lambda record: record.time_ns)
        except OSError as error:
            raise RecordingDamaged(self.done, str(error)) from error

    def _stream(self, path: Path) -> Iterator[Record]:
        number = next(self._numbers)
        with path.with_suffix(".bin").open("rb") as file:
            for at, time_ns, line in _lines(path):
                event = line.get("event")
                if event == "open":
                    yield Record(time_ns, number, Transport.TCP, What.OPEN, _address(line))
                elif isinstance(event, str):
                    # A receiver's "stall" shows in the times of the reads.
                    if event in _ENDS:
                        yield Record(time_ns, number, Transport.TCP, _ENDS[event])
                else:
                    left = _size(path, at, line)
                    while left:
                        data = file.read(min(left, MAX_DATA))
                        if not data:
                            raise RecordingDamaged(
                                at, f"{path}: {left} bytes of a read are missing"
                            )
                        left -= len(data)
                        self.done += len(data)
                        yield Record(time_ns, number, Transport.TCP, What.READ, data)

    def _peers(self, path: Path) -> Iterator[Record]:
        numbers: dict[str, int] = {}
        time_ns, end = 0, 0
        for at, time_ns, line in _lines(path):
            self.done += at - end
            end = at
            if "b64" not in line:
                continue
            port = str(line.get("port"))
            try:
                data = base64.b64decode(line["b64"], validate=True)
            except (TypeError, ValueError) as error:
                raise RecordingDamaged(at, f"{path}: {error}") from error
            if port not in numbers:
                numbers[port] = next(self._numbers)
                address = f"127.0.0.1:{port}".encode()
                yield Record(time_ns, numbers[port], Transport.UDP, What.OPEN, address)
            yield Record(time_ns, numbers[port], Transport.UDP, What.DATAGRAM, data)
        for number in numbers.values():
            yield Record(time_ns, number, Transport.UDP, What.STOPPED)


def _lines(path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield each line's end in the file, its time, and what it says."""
    at = 0
    with path.open("rb") as file:
        for text in file:
            try:
                line: dict[str, Any] = json.loads(text)
                # The receiver's clock had microseconds.
                time_ns = round(float(line["t"]) * 1_000_000) * 1_000
            except (TypeError, KeyError, ValueError, OverflowError, RecursionError) as error:
                raise RecordingDamaged(at, f"{path}: {error!r}") from error
            if not 0 <= time_ns < _LATEST_NS:
                raise RecordingDamaged(at, f"{path}: time {line['t']}")
            at += len(text)
            yield at, time_ns, line


def _size(path: Path, at: int, line: dict[str, Any]) -> int:
    size = line.get("n")
    if not isinstance(size, int) or size < 0:
        raise RecordingDamaged(at, f"{path}: a read of {size} bytes")
    return size


def _address(line: dict[str, Any]) -> bytes:
    peer = line.get("peer")
    parts = peer if isinstance(peer, list) else [peer]
    return ":".join(map(str, parts)).encode()[:MAX_DATA]
