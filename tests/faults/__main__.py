"""Runs the campaign: `python -m tests.faults [--seed N] [--only NAME] [--quick]`.

Prints a line when a fault is through and the table at the end; exits 1 if a promise was broken. A
promise of time is told as late, and is no failure: the machine may have been busy.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.campaign import FAULTS, Fault, table
from tests.faults.ground import Ground
from tests.faults.tally import Tally


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    names = [fault.name for fault in FAULTS]
    parser.add_argument("--seed", type=int, default=1, help="the same seed hurts the same way")
    parser.add_argument("--only", choices=names, action="append", help="may be given repeatedly")
    parser.add_argument("--quick", action="store_true", help="as many tries as in `make test`")
    parser.add_argument("--tries", type=int, help="as many tries, whatever is usual")
    return parser.parse_args()


async def _run(chosen: argparse.Namespace, folder: Path) -> list[tuple[Fault, Tally, float]]:
    rows = []
    for fault in FAULTS:
        if fault.name not in chosen.only if chosen.only else chosen.quick and not fault.quick:
            continue
        print(f"{fault.name}: {fault.what}", file=sys.stderr, flush=True)
        began = time.monotonic()
        tries = chosen.tries or (chosen.quick and fault.quick) or fault.whole
        with Ground(folder / fault.name) as ground:
            try:
                tally = await fault.run(ground, tries, chosen.seed)
            except Exception as error:  # the others are to be tried all the same
                tally = Tally(broken=[f"{type(error).__name__}: {error}"])
                if isinstance(error, ExceptionGroup):
                    tally.broken = [f"{type(each).__name__}: {each}" for each in error.exceptions]
        if tally.recovery > fault.recovers_in:
            tally.late.append(f"a recovery took {tally.recovery:.1f} s of {fault.recovers_in}")
        rows.append((fault, tally, time.monotonic() - began))
        print(table(rows[-1:]), file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Run what is chosen."""
    chosen = _arguments()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        rows = asyncio.run(_run(chosen, Path(folder)))
    print(table(rows))
    sys.exit(not all(tally.is_clean for _, tally, _ in rows))


if __name__ == "__main__":
    main()
