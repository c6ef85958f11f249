"""Tells the C library's allocator to keep the memory that events pass through.

By default glibc gives blocks of 128 KiB and more back to the kernel as soon as they are freed, and
what is free at a heap's end too. Every batch of events is such a block, several times over: each
copy then pays for its pages anew, which makes it twenty times as slow (docs/decisions/0010).
"""

from __future__ import annotations

import ctypes

__all__ = ["keep_memory"]

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8
"""`M_...` of glibc's malloc.h."""

_KEPT_BYTES = 16 * 1024 * 1024
"""That may be free at the end of the heap. Of heaps there is one: each thread's own would keep as much."""

_LARGE_BYTES = 4 * 1024 * 1024
"""A block of so much is given back at once: such are single large events, and they are rare."""

_STEP_BYTES = 1024 * 1024


def keep_memory() -> bool:
    """Say whether the allocator could be told; another one than glibc's is left as it is."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    mallopt(_TOP_PAD, _STEP_BYTES)
    mallopt(_ARENA_MAX, 1)
    return bool(mallopt(_TRIM_THRESHOLD, _KEPT_BYTES) and mallopt(_MMAP_THRESHOLD, _LARGE_BYTES))
