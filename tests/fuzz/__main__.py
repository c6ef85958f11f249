"""Fuzzes each target in turn and prints a table: `python -m tests.fuzz --seconds 60 [TARGET...]`.

Ends with 1 if there was a fault; the inputs are then kept, and the folder is named.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.fuzz.engine import HAS_ATHERIS
from tests.fuzz.targets import TARGETS

_GRACE_SECONDS = 120


def _fuzz(name: str, seconds: float, folder: Path) -> dict[str, Any]:
    folder.mkdir()
    command = [sys.executable, "-m", "tests.fuzz.engine", name, str(seconds), str(folder)]
    with (folder / "log").open("wb") as log:
        try:
            ended = subprocess.run(
                command, stdout=log, stderr=log, timeout=seconds + _GRACE_SECONDS, check=False
            )
            reason = f"ended with {ended.returncode}"
        except subprocess.TimeoutExpired:
            reason = "hung"
    result = folder / "result.json"
    if not result.exists():
        return {"executions": 0, "faults": [reason], "slowest_ms": 0, "peak_mib": 0}
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return found


def main() -> int:
    """Run the command, and return its exit code."""
    names = [target.name for target in TARGETS]
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=float, default=60, help="for each target")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(names))
    chosen = parser.parse_args()
    if unknown := set(chosen.targets) - set(names):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    print("engine:", "atheris" if HAS_ATHERIS else "mutation of the recordings, without coverage")
    print(f"{'target':<10} {'executions':>10} {'faults':>7} {'slowest':>10} {'peak':>9}")
    faults = 0
    for name in chosen.targets or names:
        told = _fuzz(name, chosen.seconds, folder / name)
        faults += len(told["faults"])
        print(
            f"{name:<10} {told['executions']:>10,} {len(told['faults']):>7}"
            f" {told['slowest_ms']:>7,.1f} ms {told['peak_mib']:>5} MiB",
            *told["faults"],
            flush=True,
        )
    if faults:
        print(f"the inputs are in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
