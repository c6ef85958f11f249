"""A thread that has what the others leave of the processor."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

__all__ = ["nice_thread"]

_NICE = 10
"""Enough that the others come first, and not so much that one of them waits for long for Python's lock
where this thread holds it and another process has the processor."""


def nice_thread(name: str) -> ThreadPoolExecutor:
    """Return an executor of one thread, to be shut down. Only Linux has priorities of threads."""
    return ThreadPoolExecutor(1, name, _make_nice)


def _make_nice() -> None:
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
