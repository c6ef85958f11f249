"""Runs one target in a process of its own: `python -m tests.fuzz.engine TARGET SECONDS FOLDER`.

With atheris installed (Linux, CPython up to 3.13) the inputs follow the coverage of `bridge.core`;
without it they are the recordings, mutated at random. A fault does not end the run: its input is
kept in FOLDER, one for each place that it comes from.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

__all__ = ["HAS_ATHERIS", "LONGEST_SECONDS", "main", "mutated"]

HAS_ATHERIS = importlib.util.find_spec("atheris") is not None
LONGEST_SECONDS = 5
"""What takes longer is a fault: true inputs of this size take milliseconds."""
_LONGEST_INPUT = 65_536
_MIB = 1024


class _Record:
    """Runs inputs until the time is up, and writes down how it went."""

    def __init__(self, run: Callable[[bytes], object], seconds: float, folder: Path) -> None:
        self._run = run
        self._until = time.monotonic() + seconds
        self._folder = folder
        self._executions = 0
        self._faults: set[str] = set()
        self._slowest = 0.0

    def one(self, data: bytes) -> None:
        start = time.perf_counter()
        try:
            self._run(data)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            self._keep(f"{type(error).__name__}-{Path(last.filename).stem}-{last.lineno}", data)
        took = time.perf_counter() - start
        self._executions += 1
        if took > self._slowest:
            self._slowest = took
            (self._folder / "slowest").write_bytes(data)
            if took > LONGEST_SECONDS:
                self._keep("slow", data)
        if time.monotonic() > self._until:
            self._end()

    def _keep(self, fault: str, data: bytes) -> None:
        if fault not in self._faults:
            self._faults.add(fault)
            (self._folder / f"fault-{fault}").write_bytes(data)

    def _end(self) -> None:
        told = {
            "executions": self._executions,
            "faults": sorted(self._faults),
            "slowest_ms": round(self._slowest * 1000, 1),
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // _MIB,
        }
        (self._folder / "result.json").write_text(json.dumps(told), encoding="utf-8")
        # libFuzzer has no way back to here.
        os._exit(0)


def mutated(seeds: list[bytes], draw: random.Random) -> Iterator[bytes]:
    """Yield seeds with a few bytes changed, lost, doubled, put in, or taken from another seed."""
    while True:
        data = bytearray(draw.choice(seeds))
        for _ in range(draw.choice((1, 1, 2, 4, 16))):
            at = draw.randrange(len(data) + 1)
            until = min(len(data), at + draw.choice((0, 1, 1, 2, 4, 8, 64)))
            other = draw.choice(seeds)
            place = draw.randrange(len(other) + 1)
            data[at:until] = draw.choice(
                (
                    b"",
                    draw.randbytes(max(1, until - at)),
                    bytes(data[at:until]) * 2,
                    other[place : place + draw.choice((1, 8, 200))],
                    draw.choice(
                        (b"\0", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\x7f", b"[", b"{")
                    ),
                )
            )
        yield bytes(data[:_LONGEST_INPUT])


def _by_coverage(record: _Record, seeds: list[bytes], folder: Path, atheris: Any) -> None:
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds):
        (corpus / f"{number:05}").write_bytes(seed)
    atheris.Setup(
        [
            "fuzz",
            str(corpus),
            f"-max_len={_LONGEST_INPUT}",
            "-timeout=60",
            "-rss_limit_mb=1024",
            f"-artifact_prefix={folder}/fault-",
        ],
        record.one,
    )
    atheris.Fuzz()


def main(name: str, seconds: float, folder: Path) -> None:
    """Fuzz the target `name`; the result stands in `folder`/result.json."""
    atheris = importlib.import_module("atheris") if HAS_ATHERIS else None
    watching = atheris.instrument_imports(include=["bridge"]) if atheris else nullcontext()
    with watching:
        targets = importlib.import_module("tests.fuzz.targets").TARGETS
    target = next(each for each in targets if each.name == name)
    seeds = [seed[:_LONGEST_INPUT] for seed in target.seeds()]
    record = _Record(target.run, seconds, folder)
    for seed in seeds:
        record.one(seed)
    if atheris:
        _by_coverage(record, seeds, folder, atheris)
    for data in mutated(seeds, random.Random()):
        record.one(data)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]))
