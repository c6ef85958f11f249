"""Alerts that are no gaps: each is told once, and once more when it is over.

Whoever can send blocks could make any number of alerts, so some troubles are over only when the
chain has gone on for some blocks without them, and there is a bound on how many are remembered.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import orjson

from bridge.core.signals import Cause, Signal, Status, Trouble

__all__ = ["MOST_UNVERIFIED", "QUIET_BLOCKS", "Troubles"]

MOST_UNVERIFIED = 64
"""Unverified blocks that are remembered; beyond that the oldest is forgotten, and counted."""

QUIET_BLOCKS = 3
"""Blocks after which what a block brought up is over, if it did not come again."""

_ROW = "heights/troubles"


@dataclass(slots=True)
class _Open:
    id: str
    trouble: Trouble
    first: int
    last: int
    opened_ns: int
    cause: Cause
    quiet: int = 0
    """Blocks by which the chain grew since it last came up."""


class Troubles:
    """What is wrong besides gaps, by a name of which there is one at a time."""

    def __init__(self, items: Iterable[tuple[str, bytes]]) -> None:
        """Take what was stored; pass over the items of others."""
        self.dropped = 0
        self._open: dict[str, _Open] = {}
        self._told = 0
        """How many were ever told: no two have the same id."""
        self._signals: list[Signal] = []
        self._dirty = False
        for name, value in items:
            if name == _ROW:
                self._told, stored = orjson.loads(value)
                for name_, each in stored.items():
                    trouble, cause = Trouble(each.pop("trouble")), Cause(each.pop("cause"))
                    self._open[name_] = _Open(trouble=trouble, cause=cause, **each)

    def __contains__(self, name: str) -> bool:
        return name in self._open

    def tell(
        self,
        name: str,
        trouble: Trouble,
        first: int,
        last: int,
        why: str,
        at_ns: int,
        cause: Cause = Cause.UNKNOWN,
    ) -> None:
        """Tell of a trouble, unless it is told already."""
        known = self._open.get(name)
        if known is not None:
            if known.quiet:
                known.quiet, self._dirty = 0, True
            return
        self._told += 1
        opened = _Open(f"{trouble}-{last}-{self._told}", trouble, first, last, at_ns, cause)
        self._open[name] = opened
        # Nobody will say of a height that was refused that it is true after all.
        status = Status.UNRESOLVED if trouble is Trouble.JUMP else Status.OPENED
        self._say(opened, status, why, at_ns)

    def over(self, name: str, why: str, at_ns: int) -> None:
        """Tell that a trouble is over, if it is there."""
        known = self._open.pop(name, None)
        if known is not None:
            self._say(known, Status.RESOLVED, why, at_ns)

    def unverified(self, height: int, key: bytes, why: str, at_ns: int) -> None:
        """Tell of a block whose hashes do not hold."""
        held = [name for name, each in self._open.items() if each.trouble is Trouble.UNVERIFIED]
        name = f"{height}/{key[:8].hex()}"
        if len(held) >= MOST_UNVERIFIED and name not in self._open:
            del self._open[held[0]]
            self.dropped += 1
        self.tell(name, Trouble.UNVERIFIED, height, height, why, at_ns)

    def verified(self, height: int, at_ns: int) -> None:
        """Note that a good block of `height` came."""
        for name in [name for name in self._open if name.startswith(f"{height}/")]:
            self.over(name, "a block of this height came whose hashes hold", at_ns)

    def grew(self, at_ns: int) -> None:
        """Note that the chain grew by a block."""
        for name, each in list(self._open.items()):
            if each.trouble in {Trouble.JUMP, Trouble.NETWORK}:
                each.quiet += 1
                self._dirty = True
                if each.quiet < QUIET_BLOCKS:
                    continue
                if each.trouble is Trouble.JUMP:
                    del self._open[name]
                else:
                    self.over(name, f"{QUIET_BLOCKS} blocks came without one of its kind", at_ns)

    def take(self) -> tuple[list[Signal], dict[str, bytes | None]]:
        """Return the signals, and the items that changed, since the last time."""
        signals, self._signals = self._signals, []
        if not self._dirty:
            return signals, {}
        self._dirty = False
        stored = {name: asdict(each) for name, each in self._open.items()}
        return signals, {_ROW: orjson.dumps([self._told, stored])}

    def _say(self, each: _Open, status: Status, why: str, at_ns: int) -> None:
        self._dirty = True
        self._signals.append(
            Signal(
                each.id,
                each.trouble,
                status,
                each.first,
                each.last,
                each.opened_ns,
                at_ns,
                each.cause,
                why=why,
            )
        )
