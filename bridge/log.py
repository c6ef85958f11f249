"""Logs by structlog, on standard error: console lines on a terminal, JSON elsewhere.

The libraries' own loggers pass through the same pipe at warning level: what they tell of a broker
that is away, the bridge tells itself, once.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Literal, TextIO, cast

import structlog

__all__ = ["STDERR", "Throttle", "configure", "end", "failures", "get"]

_LONGEST_VALUE = 1_000
_NOISY = ("aiokafka", "nats")
_TELLS_SECRETS = "aiokafka.conn"
"""Writes out each request at debug level, the login with its password too."""


def get(part: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of `part`."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(part=part)
    return logger


class _Stderr:
    """Standard error, which may fail: it may lie on the very disk that is full."""

    failures = 0

    def write(self, text: str) -> int:
        self._attempt(lambda: sys.stderr.write(text))
        return len(text)

    def flush(self) -> None:
        self._attempt(sys.stderr.flush)

    def isatty(self) -> bool:
        return sys.stderr.isatty()

    def _attempt(self, work: Callable[[], object]) -> None:
        try:
            work()
        except OSError:
            self.failures += 1


_stderr = _Stderr()
STDERR = cast("TextIO", _stderr)
"""Where logs and errors go. What cannot be written there ends nothing, and changes no exit code."""


def failures() -> int:
    """Return how often standard error could not be written."""
    return _stderr.failures


def end() -> None:
    """Let go of what still cannot be written: the interpreter's end would fail of it."""
    before = _stderr.failures
    STDERR.flush()
    if _stderr.failures > before:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def configure(level: str, format: Literal["auto", "console", "json"]) -> None:
    """Set logging up for the process."""
    console = format == "console" or (format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _bounded,
    ]
    last: list[structlog.typing.Processor] = (
        [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                # The default one shows local variables, and with them whatever is secret.
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(STDERR),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(STDERR)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.DEBUG if level == "debug" else logging.CRITICAL)
    logging.getLogger(_TELLS_SECRETS).setLevel(
        logging.INFO if level == "debug" else logging.CRITICAL
    )


def _bounded(
    logger: object, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """What a peer sent may stand in a value: no line grows without limit because of it."""
    for key, value in event.items():
        if isinstance(value, str) and len(value) > _LONGEST_VALUE:
            event[key] = value[:_LONGEST_VALUE] + "..."
    return event


class Throttle:
    """Lets one line through per `seconds`, and counts those held back between."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last: dict[str, float] = {}
        self._held: dict[str, int] = {}

    def passes(self, key: str) -> int | None:
        """Return how many were held back since the last one for `key`, or None to hold this."""
        now = time.monotonic()
        if now - self._last.get(key, -self._seconds) < self._seconds:
            self._held[key] = self._held.get(key, 0) + 1
            return None
        self._last[key] = now
        return self._held.pop(key, 0)
