"""Runs the campaign: `python -m tests.faults [--seed N] [--only NAME] [--quick] [--json FILE]`.

Each fault has a process of its own; those that need little run two at a time. Tells how far it is,
prints a line when a fault is through and the table at the end; exits 1 if a promise was broken. A
promise of time is told as late, and is no failure: the machine may have been busy.

`--json` adds a line for each fault to a file; `--table` makes docs/delivery.md's rows of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from bridge import log
from tests.faults.campaign import FAULTS, Fault, Row, markdown, table
from tests.faults.ground import Ground
from tests.faults.tally import Tally

_SIDE_BY_SIDE = 2
_PROGRESS_SECONDS = 30
_PROGRESS_ON_TERMINAL_SECONDS = 5


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    names = [fault.name for fault in FAULTS]
    parser.add_argument("--seed", type=int, default=1, help="the same seed hurts the same way")
    parser.add_argument("--only", choices=names, action="append", help="may be given repeatedly")
    parser.add_argument("--quick", action="store_true", help="as many tries as in `make test`")
    parser.add_argument("--tries", type=int, help="as many tries, whatever is usual")
    parser.add_argument("--json", type=Path, help="to this file, a line when a fault is through")
    parser.add_argument("--table", type=Path, help="print what such a file holds, as Markdown")
    return parser.parse_args()


async def _run(fault: Fault, tries: int, seed: int) -> Row:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder, Ground(Path(folder)) as ground:
        telling = asyncio.create_task(_tell(fault, ground, tries * fault.parts))
        try:
            tally = await fault.run(ground, tries, seed)
        except ExceptionGroup as group:
            tally = Tally(broken=[f"{type(each).__name__}: {each}" for each in group.exceptions])
        except Exception as error:  # the others are to be tried all the same
            tally = Tally(broken=[f"{type(error).__name__}: {error}"])
        finally:
            telling.cancel()
    return fault, tally, time.monotonic() - began


async def _tell(fault: Fault, ground: Ground, tries: int) -> None:
    began = time.monotonic()
    while True:
        await asyncio.sleep(
            _PROGRESS_ON_TERMINAL_SECONDS if sys.stderr.isatty() else _PROGRESS_SECONDS
        )
        seconds = time.monotonic() - began
        print(f"{fault.name}: {ground.tries} of {tries} in {seconds:.0f} s", file=sys.stderr)


async def _all(chosen: list[Fault], arguments: list[str]) -> None:
    """Run each fault as a process of its own: alone, or two at a time."""
    for alone, group in groupby(chosen, key=lambda fault: fault.alone):
        left = iter(group)
        async with asyncio.TaskGroup() as workers:
            for _ in range(1 if alone else _SIDE_BY_SIDE):
                workers.create_task(_each(left, arguments))


async def _each(left: Iterator[Fault], arguments: list[str]) -> None:
    for fault in left:
        command = ["-m", "tests.faults", "--only", fault.name, *arguments]
        print(f"{fault.name}: {fault.what}", file=sys.stderr, flush=True)
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdout=asyncio.subprocess.DEVNULL
        )
        await process.wait()


def _write(path: Path, row: Row) -> None:
    fault, tally, seconds = row
    with path.open("a", encoding="utf-8") as file:
        told = {"fault": fault.name, "seconds": seconds, "tally": asdict(tally)}
        file.write(json.dumps(told) + "\n")


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def _read(lines: list[str]) -> list[Row]:
    """Return the last row of each fault."""
    found = {told["fault"]: told for told in map(json.loads, lines)}
    told = [(fault, found[fault.name]) for fault in FAULTS if fault.name in found]
    return [(fault, Tally(**each["tally"]), each["seconds"]) for fault, each in told]


def main() -> None:
    """Run what is chosen."""
    chosen = _arguments()
    # What the replays' trackers have to say is their victims' too.
    log.configure("error", "console")
    if chosen.table:
        print(markdown(_read(_lines(chosen.table))))
        return
    faults = [
        fault
        for fault in FAULTS
        if (fault.name in chosen.only if chosen.only else fault.quick or not chosen.quick)
    ]
    if len(faults) == 1:
        (fault,) = faults
        tries = chosen.tries or (chosen.quick and fault.quick) or fault.whole
        rows = [asyncio.run(_run(fault, tries, chosen.seed))]
        print(table(rows), file=sys.stderr, flush=True)
        if chosen.json:
            _write(chosen.json, rows[0])
    else:
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            path = chosen.json or Path(folder) / "rows"
            arguments = ["--seed", str(chosen.seed), "--json", str(path)]
            arguments += ["--quick"] * chosen.quick
            arguments += ["--tries", str(chosen.tries)] if chosen.tries else []
            before = len(_lines(path))
            asyncio.run(_all(faults, arguments))
            through = {row[0]: row for row in _read(_lines(path)[before:])}
            nothing = Tally(broken=["ended without a result"])
            rows = [through.get(fault, (fault, nothing, 0.0)) for fault in faults]
    print(table(rows))
    sys.exit(not all(tally.is_clean for _, tally, _ in rows))


if __name__ == "__main__":
    main()
