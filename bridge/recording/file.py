"""Recording files: written block by block, read with bounded memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from bridge.errors import RecordingDamaged, RecordingUnwritable, UsageError
from bridge.recording.format import Decoder, Encoder, Record

__all__ = ["FileReader", "FileWriter", "Source"]

_CHUNK_BYTES = 64 * 1024


class Source(Protocol):
    """Recorded records, read once, and how far the reading is."""

    size: int
    """Bytes to be read."""
    done: int
    """Bytes read so far."""

    def __iter__(self) -> Iterator[Record]:
        """Yield the records in order of time.

        Raises:
            RecordingDamaged: the rest cannot be read; what is before it was given.
        """


class FileWriter:
    """A new recording. As a context it is ended in order, whatever ended the body.

    A crash loses what was added since the last block. When the disk is full, the block that did
    not fit is taken off again: the file stays readable up to the one before.
    """

    def __init__(self, path: Path, *, force: bool = False) -> None:
        """Make the file.

        Raises:
            UsageError: it is there already and `force` is not set, or it cannot be made.
            RecordingUnwritable: there is no room for its first bytes.
        """
        try:
            self._file = path.open("wb" if force else "xb", buffering=0)
        except FileExistsError as error:
            raise UsageError(f"{path} is there already; --force overwrites it") from error
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}") from error
        self.size = 0
        self._path = path
        self._encoder = Encoder()
        self._failed = False
        try:
            self._append(self._encoder.begin())
        except RecordingUnwritable:
            self._file.close()
            path.unlink()
            raise

    def add(self, record: Record) -> None:
        """Take `record`; it is in the file with the next block.

        Raises:
            RecordingUnwritable: the file cannot grow; it ends with the last block that fitted.
        """
        self._append(self._encoder.add(record))

    def flush(self) -> None:
        """Hand everything to the operating system. Raises: as `add`."""
        self._append(self._encoder.flush())

    def close(self) -> None:
        """End the recording, and sync it. Raises: as `add`."""
        if self._file.closed:
            return
        try:
            if not self._failed:
                self._append(self._encoder.end())
                os.fsync(self._file.fileno())
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            self._file.close()

    def _append(self, data: bytes) -> None:
        left = memoryview(data)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._failed = True
            with suppress(OSError):
                self._file.truncate(self.size)
            raise self._unwritable(error) from error
        self.size += len(data)

    def _unwritable(self, error: OSError) -> RecordingUnwritable:
        return RecordingUnwritable(
            f"cannot write {self._path}: {error.strerror};"
            f" it is readable up to its {self.size} bytes"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


class FileReader:
    """A recording file as a source."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            UsageError: there is none that can be read.
        """
        try:
            self._file = path.open("rb")
            self.size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from error
        self.done = 0

    def __iter__(self) -> Iterator[Record]:
        decoder = Decoder()
        with self._file:
            while chunk := self._chunk():
                self.done += len(chunk)
                decoder.receive(chunk)
                yield from decoder.records()
        decoder.finish()

    def _chunk(self) -> bytes:
        try:
            return self._file.read(_CHUNK_BYTES)
        except OSError as error:
            raise RecordingDamaged(self.done, str(error)) from error
