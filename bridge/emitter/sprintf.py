"""Texts put together as Go's `fmt.Sprintf` does it, which never fails: what is wrong shows in the text.

    %v %s        the value as text          %d %o %x %X %c   an integer
    %x %X        bytes or text in hex       %e %f %g         a number
    %q           text in double quotes      %t               true or false

Flags, width and precision as in Go, up to three digits. Types are named as Python names them.
"""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["sprintf"]

_VERB = re.compile(r"%([-+# 0]*)(\d{0,3})((?:\.\d{0,3})?)(.?)", re.DOTALL)
_INTEGERS, _NUMBERS = frozenset("doxXc"), frozenset("eEfFgG")
_MISSING = object()


def sprintf(text: str, *values: object) -> str:
    """Return `text` with `values` in the place of its verbs."""
    remaining = iter(values)

    def put(found: re.Match[str]) -> str:
        *form, verb = found.groups()
        if verb == "%":
            return "%"
        if not verb:
            return "%!(NOVERB)"
        value = next(remaining, _MISSING)
        return f"%!{verb}(MISSING)" if value is _MISSING else _written("".join(form), verb, value)

    whole = _VERB.sub(put, text)
    extra = ", ".join(map(_told, remaining))
    return f"{whole}%!(EXTRA {extra})" if extra else whole


def _written(form: str, verb: str, value: Any) -> str:
    wrong = f"%!{verb}({_told(value)})"
    match value:
        case _ if verb in "vs":
            value, verb = _plain(value), "s"
        case bool() if verb == "t":
            value, verb = _plain(value), "s"
        case str() | bytes() if verb == "q":
            value, verb = json.dumps(_plain(value), ensure_ascii=False), "s"
        case str() | bytes() if verb in "xX":
            digits = (value.encode(errors="replace") if isinstance(value, str) else value).hex()
            value, verb = (digits if verb == "x" else digits.upper()), "s"
        case bool():
            return wrong
        case int() if verb in _INTEGERS | _NUMBERS:
            pass
        case float() if verb in _NUMBERS:
            pass
        case _:
            return wrong
    try:
        written: str = f"%{form}{verb}" % (value,)
    except (OverflowError, ValueError):
        # No character has that number, or no float is so large.
        return wrong
    return written


def _told(value: object) -> str:
    return f"{type(value).__name__}={_plain(value)}"


def _plain(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case None:
            return "<nil>"
        case bytes():
            return value.decode(errors="replace")
        case _:
            return str(value)
