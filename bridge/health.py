"""What state each part is in, for `/readyz`, the start-up line and the operator."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Health", "PartState"]


class PartState(NamedTuple):
    """State of one part: a word, whether it may be called ready, and the cause."""

    ready: bool
    state: str
    cause: str = ""


class Health:
    """The parts' states. Each part tells its own; nobody polls."""

    def __init__(self) -> None:
        self.parts: dict[str, PartState] = {}

    @property
    def ready(self) -> bool:
        """Whether every part is ready."""
        return bool(self.parts) and all(part.ready for part in self.parts.values())

    def told(self, part: str, state: str, *, ready: bool = False, cause: str = "") -> bool:
        """Note the state of `part`; return whether it is another than before."""
        before, now = self.parts.get(part), PartState(ready, state, cause)
        self.parts[part] = now
        return before is None or before[:2] != now[:2]
