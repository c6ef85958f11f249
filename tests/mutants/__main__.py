"""Tries the mutants: `python -m tests.mutants [--only NAME]`.

Each is applied to a copy of the tree, and the tests that are to catch it are run there. Prints
what caught it, and why; exits 1 if one survives, if one no longer fits the code, or if those tests
are red without any.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tests.mutants.catalog import MUTANTS, ROOT, Mutant

_SECONDS = 600
"""For the tests of one mutant: a hang is no catch."""

_WIDEST = 120
_WHY = re.compile(r"^E +(\S.*)$", re.MULTILINE)
_FAILED = re.compile(r"^FAILED (\S+?)(?:\[.*)?(?: - .*)?$", re.MULTILINE)


class _Verdict(NamedTuple):
    caught_by: str | None
    told: str
    seconds: float


def _copy(folder: Path) -> None:
    """Copy what git has, and what it is yet to be given, to `folder`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        source, target = ROOT / name, folder / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    # The environment has the tree itself installed: children, which get no PYTHONPATH, must not
    # come to that one.
    where = _python(folder, "-c", "import bridge; print(bridge.__file__)").stdout.strip()
    if not Path(where).is_relative_to(folder):
        raise SystemExit(f"not the copy in {folder} would be tested, but {where}")


def _python(folder: Path, *arguments: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    plain = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**plain, "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def _tested(tests: Iterable[str], mutant: Mutant | None = None) -> _Verdict:
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        folder = Path(name).resolve()
        _copy(folder)
        if mutant is not None:
            mutant.apply(folder)
        began = time.monotonic()
        options = ("-x", "-q", "-rf", "-p", "no:randomly", "-p", "no:cacheprovider")
        try:
            done = _python(folder, "-m", "pytest", *options, *tests, seconds=_SECONDS)
        except subprocess.TimeoutExpired:
            return _Verdict(None, f"no end in {_SECONDS} s", _SECONDS)
        seconds = time.monotonic() - began
        failed = _FAILED.search(done.stdout)
        if done.returncode == 1 and failed:
            reason = _WHY.search(done.stdout)
            return _Verdict(failed[1], reason[1][:_WIDEST] if reason else "", seconds)
        # Not even collected, or broken beside the tests: that is no test that caught it.
        why = "" if done.returncode == 0 else f"pytest ended with {done.returncode}\n"
        return _Verdict(None, why + (done.stdout[-3000:] if why else ""), seconds)


def _print(name: str, verdict: _Verdict, breaks: str = "") -> None:
    print(f"{name:<34} {verdict.seconds:>6.1f} s  {breaks}")
    if verdict.caught_by:
        print(f"    {verdict.caught_by}\n    {verdict.told}", flush=True)


def main() -> None:
    """Try those that are chosen."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    names = [mutant.name for mutant in MUTANTS]
    parser.add_argument("--only", choices=names, action="append", help="may be given repeatedly")
    chosen = [m for m in MUTANTS if m.name in (parser.parse_args().only or names)]
    whole = _tested(dict.fromkeys(test for mutant in chosen for test in mutant.caught_by))
    _print("without a mutant", whole)
    if whole.caught_by or whole.told:
        sys.exit(f"the tests are red without any mutant\n{whole.told}")
    survived = []
    for mutant in chosen:
        verdict = _tested(mutant.caught_by, mutant)
        _print(mutant.name, verdict, mutant.breaks)
        if verdict.caught_by is None:
            survived.append(mutant.name)
            print(f"    SURVIVED\n{verdict.told}", flush=True)
    print(f"{len(chosen) - len(survived)} of {len(chosen)} mutants were caught")
    sys.exit(f"survived: {', '.join(survived)}" if survived else 0)


if __name__ == "__main__":
    main()
