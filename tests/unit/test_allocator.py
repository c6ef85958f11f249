"""Memory that batches passed through is kept, so that the next ones need no new pages."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_SCRIPT = """
import resource, sys
from bridge.allocator import keep_memory
if sys.argv[1] == "kept":
    assert keep_memory()
batch = bytearray(1_000_000)

def copies(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        held = [bytes(batch) for _ in range(10)]
        held.clear()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

copies(1)
print(copies(50))
"""


def _faults(how: str) -> int:
    command = [sys.executable, "-c", _SCRIPT, how]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_batches_reuse_their_memory() -> None:
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("NOT GLIBC: its allocator is not told anything")
    pages = 50 * 10 * 1_000_000 // 4096
    assert _faults("kept") < pages / 20
    assert _faults("as it is") > pages / 2, "the C library has learnt it: this module can go"
