"""The compiled part, where it was built; None where it was not: then Python does all of it.

Built by `pip install` where there is a C compiler. What it does, and that it does the same, is told
in `_native.c`; why it is there in docs/decisions/0009-a-compiled-part.md.
"""

from __future__ import annotations

from types import ModuleType

__all__ = ["native"]

native: ModuleType | None
try:
    from bridge.core import _native as native
except ImportError:
    native = None
