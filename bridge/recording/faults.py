"""Faults on the way of a played recording: which frames they strike is decided by a seed. Pure."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from enum import Enum, auto

from bridge.errors import UsageError

__all__ = ["Fault", "FaultPlan", "Faults"]

_STALL_PERCENT = 1.0
_NUMBER = r"(\d+(?:\.\d+)?)"
_SHARE = re.compile(rf"(drop|cut)={_NUMBER}%?")
_STALL = re.compile(rf"(stall)={_NUMBER}s?(?:@{_NUMBER}%?)?")


class Fault(Enum):
    """What happens to one frame."""

    NONE = auto()
    DROP = auto()
    """It is not sent."""
    CUT = auto()
    """Half of it is sent, then the connection is closed and the frame sent whole on a new one."""
    STALL = auto()
    """Half of it is sent, then nothing for a while, then the other half."""


@dataclass(frozen=True)
class Faults:
    """How often, in percent of the frames."""

    drop: float = 0
    cut: float = 0
    stall: float = 0
    stall_seconds: float = 0

    def __bool__(self) -> bool:
        return bool(self.drop or self.cut or self.stall)

    @classmethod
    def parse(cls, text: str) -> Faults:
        """Read `drop=2,cut=0.5,stall=5@0.1`: percents, and seconds at a percent (1 if not told).

        Raises:
            UsageError: it is none of these, or more than 100 % together.
        """
        values: dict[str, float] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            found = _SHARE.fullmatch(part) or _STALL.fullmatch(part)
            if found is None or found[1] in values:
                raise UsageError(
                    f"fault {part!r}: use each of drop=PERCENT, cut=PERCENT,"
                    " stall=SECONDS@PERCENT at most once"
                )
            values[found[1]] = float(found[2])
            if found[1] == "stall":
                values["stall_seconds"] = float(found[2])
                values["stall"] = float(found[3]) if found[3] else _STALL_PERCENT
        faults = cls(**values)
        if faults.drop + faults.cut + faults.stall > 100:
            raise UsageError(f"faults {text!r} strike more than 100 % of the frames")
        return faults


class FaultPlan:
    """Decides frame by frame; the same faults and seed decide the same."""

    def __init__(self, faults: Faults, seed: int) -> None:
        drop, cut, stall = faults.drop, faults.cut, faults.stall
        self._shares = (
            (Fault.DROP, drop),
            (Fault.CUT, drop + cut),
            (Fault.STALL, drop + cut + stall),
        )
        self._random = random.Random(seed)  # noqa: S311  (it must be repeatable)

    def next(self) -> Fault:
        """Return what happens to the next frame."""
        drawn = self._random.random() * 100
        return next((fault for fault, below in self._shares if drawn < below), Fault.NONE)
