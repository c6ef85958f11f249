"""A small disk that can be filled to the last byte, for as long as a `with` lasts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

__all__ = ["CannotMount", "SmallDisk", "small_disk"]

Kind = Literal["tmpfs", "ext4"]


class CannotMount(Exception):
    """This user, or this machine, may not mount it; the message says why."""


class SmallDisk:
    """Mounted at `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> int:
        """Fill it to the last byte, and return how many that took."""
        written = 0
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                try:
                    while True:
                        written += file.write(bytes(size))
                except OSError:
                    continue
        return written

    def free(self, room: int | None = None) -> None:
        """Give that room back: all, or so many bytes of it."""
        if room is None:
            self._ballast.unlink()
        else:
            os.truncate(self._ballast, self._ballast.stat().st_size - room)


@contextmanager
def small_disk(folder: Path, kind: Kind, megabytes: int) -> Iterator[SmallDisk]:
    """Mount a disk of `megabytes` at `folder`, which is made.

    Raises:
        CannotMount: this is no machine for it.
    """
    folder.mkdir()
    image = folder.with_suffix(".image")
    if kind == "tmpfs":
        _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "small-disk", str(folder))
    else:
        with image.open("wb") as file:
            file.truncate(megabytes << 20)
        _run("mkfs.ext4", "-q", "-m", "0", str(image))
        _run("mount", "-o", "loop", str(image), str(folder))
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise CannotMount(f"there is no {command[0]}") from error
    except subprocess.CalledProcessError as error:
        raise CannotMount(f"{command[0]}: {error.stderr.strip()}") from error
