"""The compiled part, where it was built; None where it was not: then Python does all of it.

Built by `pip install` where there is a C compiler. What it does, and that it does the same, is told
in `_native.c`; why it is there in docs/decisions/0009-a-compiled-part.md.
"""

from __future__ import annotations

import _hashlib
import ctypes
import hashlib
from types import ModuleType

__all__ = ["native", "openssl"]

native: ModuleType | None
try:
    from bridge.core import _native as native
except ImportError:
    native = None


def openssl() -> list[int]:
    """Return where the functions of the OpenSSL stand that hashlib uses; zeros where that is not told.

    It is told where OpenSSL is a library of its own, as on Linux's distributions; else, and where
    a later OpenSSL has these old functions no more, hashlib is called.
    """
    try:
        library = ctypes.CDLL(_hashlib.__file__)
        functions = [library.SHA256_Init, library.SHA256_Update, library.SHA256_Final]
    except (AttributeError, OSError):
        return [0, 0, 0]
    return [ctypes.cast(each, ctypes.c_void_p).value or 0 for each in functions]


if native is not None:
    native.hash_with(hashlib.sha256, *openssl())
