"""When the journal's head was where, so that what is older than the replay horizon can be told."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

__all__ = ["Marks"]

_MOST = 1_000
"""The horizon moves on in so many steps: the memory is the same however long it is."""


class Marks:
    """Time is monotonic; marks begin anew at each start."""

    def __init__(
        self, seconds: float, head: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._marks: deque[tuple[float, int]] = deque([(clock(), head)])
        self._expired = 0

    def __len__(self) -> int:
        return len(self._marks)

    def expired(self, head: int) -> int:
        """Note where the head is now; return the last number that is older than the horizon."""
        now = self._clock()
        if not self._marks or now - self._marks[-1][0] >= self._seconds / _MOST:
            self._marks.append((now, head))
        while self._marks and self._marks[0][0] <= now - self._seconds:
            self._expired = self._marks.popleft()[1]
        return self._expired
