"""The jars a Kafka broker is made of, in a cache outside the repository.

They come from Maven's central repository through jgo, and are used only when they are exactly those
of `kafka-jars.sha256`. Run as a program it prints the folder; `make test` does so first, so that a
first download does not use up a test's timeout.

To move to another version: change `_VERSION` and `_ARTIFACTS`, run this, check the jars that it
leaves in the folder ending in `.partial`, and write `sha256sum *.jar` from there into the list.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from jgo.maven import MavenContext

__all__ = ["kafka_jars", "verify"]

_VERSION = "4.3.1"
# Resolved one after the other: as one request, the second one's bill of materials silently
# replaces kafka-clients by 3.9.1.
_ARTIFACTS = (
    f"org.apache.kafka:kafka_2.13:jar:{_VERSION}:compile",
    "org.apache.logging.log4j:log4j-slf4j-impl:jar:2.25.4:compile",
)
_PINNED = Path(__file__).with_name("kafka-jars.sha256")
_REQUEST_SECONDS = 60


@cache
def kafka_jars() -> Path:
    """Return the folder that holds the pinned jars and nothing else.

    Raises:
        RuntimeError: what was downloaded, or lies in the cache, is not what is pinned.

    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "factom-bridge"
    folder = home / f"kafka-{_VERSION}"
    home.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _download(folder)
    verify(folder, _pinned())
    return folder


def _download(folder: Path) -> None:
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    repository = partial / "maven"
    repository.mkdir(parents=True)
    print(f"Downloading Kafka {_VERSION} (45 MB) into {folder}", file=sys.stderr, flush=True)
    for artifact in _ARTIFACTS:
        # A repository of our own: jgo writes in place, so one that is shared may hold torn files.
        context = MavenContext(repo_cache=repository, timeout=_REQUEST_SECONDS)
        wanted, needed = context.resolver.resolve([context.create_dependency(artifact)])
        for dependency in (*wanted, *needed):
            if dependency.scope in {"compile", "runtime"}:
                shutil.copy(dependency.artifact.resolve(), partial)
    shutil.rmtree(repository)
    verify(partial, _pinned())
    partial.rename(folder)


def verify(folder: Path, pinned: Mapping[str, str]) -> None:
    """Compare `folder` with SHA-256 sums by file name.

    Raises:
        RuntimeError: names every file that differs, is missing or is too many.

    """
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    wrong = [
        *(f"{name} is missing" for name in sorted(pinned.keys() - found.keys())),
        *(f"{name} is not in {_PINNED.name}" for name in sorted(found.keys() - pinned.keys())),
        *(
            f"{name} has SHA-256 {found[name]}, pinned is {pinned[name]}"
            for name in sorted(pinned.keys() & found.keys())
            if found[name] != pinned[name]
        ),
    ]
    if wrong:
        raise RuntimeError(
            f"The Kafka jars in {folder} are not the pinned ones: {'; '.join(wrong)}. Delete the"
            f" folder and run `python -m tests.brokers.kafka_jars`;"
            " if it happens again, do not use them: find out who changed them."
        )


def _pinned() -> dict[str, str]:
    lines = _PINNED.read_text(encoding="ascii").splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}


if __name__ == "__main__":
    try:
        print(kafka_jars())
    except (RuntimeError, OSError) as error:  # a failing request is an OSError
        sys.exit(f"{type(error).__name__}: {error}")
