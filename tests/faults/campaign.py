"""Which faults there are, how often each is tried, and the table of what came of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from statistics import median
from typing import NamedTuple

from tests.faults import damage, disk, ends, kills, network, outages, power, regressed, syncs
from tests.faults.ground import Ground
from tests.faults.tally import Tally

__all__ = ["FAULTS", "Fault", "Row", "markdown", "table"]


class Fault(NamedTuple):
    """One fault of the campaign."""

    name: str
    run: Callable[[Ground, int, int], Awaitable[Tally]]
    """With the ground, how many tries, and a seed."""
    quick: int
    """Tries of the quick selection; 0: it is not in that."""
    whole: int
    recovers_in: float
    """Seconds in which all is to work again."""
    what: str
    """One line about it: what is tried, and from when the recovery counts."""
    alone: bool = False
    """Whether it takes all cores of a small machine, or measures what others would spoil."""
    parts: int = 1
    """How many times the tries are made."""


FAULTS = (
    Fault("kill", kills.at_random, 20, 1000, 3, "SIGKILL at a random moment; start to ready", True),
    Fault(
        *("points", kills.at_points, 2, 50, 3, "SIGKILL at a named point; start to ready", True),
        parts=len(kills.POINTS),
    ),
    Fault("cut", damage.cut, 10, 128, 5, "journal or WAL cut short; start to delivered", True),
    Fault("bits", damage.flipped, 10, 1000, 5, "a bit of journal or WAL turned; as above", True),
    Fault(
        "kafka-killed", outages.kafka_killed, 0, 20, 30, "SIGKILL, start; return to drained", True
    ),
    Fault("nats-killed", outages.nats_killed, 3, 20, 30, "the same", True),
    Fault("kafka-paused", outages.kafka_paused, 1, 3, 30, "5, 35, 130 s; return to drained"),
    Fault("nats-paused", outages.nats_paused, 0, 3, 30, "the same"),
    Fault("network", network.moods, 6, 60, 30, "slow, swallowed, half, reset; end to drained"),
    Fault("fsync", syncs.failing, 3, 100, 3, "the n-th fsync fails; start to receiving"),
    Fault("writes", syncs.not_written, 2, 20, 5, "writes fail, EIO, ENOSPC; failure to ready"),
    Fault(
        "sigterm", network.terminated, 2, 40, 3, "SIGTERM, brokers up, gone, mute; start to ready"
    ),
    Fault("embedded", outages.embedded_killed, 5, 100, 2, "SIGKILL of the embedded NATS; to ready"),
    Fault("power", power.cut, 3, 30, 3, "power cut under journal and embedded NATS; to ready"),
    Fault("disk", disk.full, 1, 3, 5, "the disk full for 3, 60, 10 s; room to drained"),
    Fault("limit", disk.limited, 0, 2, 5, "no file may grow for 3, 60 s; end to drained"),
    Fault("set-back", regressed.set_back, 0, 4, 30, "older data in a broker; return to drained"),
    Fault("two", ends.second_instance, 1, 20, 3, "a second instance on the journal"),
    Fault("clock", ends.clock_jumps, 2, 24, 5, "the wall clock jumps; to drained"),
)

Row = tuple[Fault, Tally, float]
"""A fault, what came of it, and how many seconds it took."""

_FIGURES = (
    *("tries", "accepted", "lost", "reordered", "duplicates", "repeats", "wrong"),
    "compared",
)
_HEAD = (
    *("fault", "tries", "accepted", "lost", "reordered", "twice NATS", "twice Kafka", "wrong"),
    *("replayed", "recovery s", "worst", "of s", "late", "took s", ""),
)


def table(rows: Iterable[Row]) -> str:
    """Return the results as text, a line for each fault, then all that is to be told beside.

    Recovery is the median, beside it the worst, the limit, and how often that was passed.
    """
    lines: list[tuple[str, ...]] = [_HEAD]
    told = []
    for fault, tally, seconds in rows:
        lines.append(
            (
                fault.name,
                *(str(getattr(tally, name)) for name in _FIGURES),
                *(f"{median(tally.recoveries or [0]):.2f}", f"{tally.recovery:.2f}"),
                *(f"{fault.recovers_in:g}", str(_late(fault, tally)), f"{seconds:.0f}"),
                _verdict(fault, tally),
            )
        )
        told += [
            f"{fault.name}: {sentence}"
            for sentence in (*tally.lacking, *tally.broken, *tally.late, *tally.notes)
        ]
        if tally.not_tried:
            told.append(f"{fault.name}: NOT TRIED, {tally.not_tried}")
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        (
            *(
                "  ".join(
                    word.ljust(width) if not place else word.rjust(width)
                    for place, (word, width) in enumerate(zip(line, widths, strict=True))
                )
                for line in lines
            ),
            *told,
        )
    )


def markdown(rows: Iterable[Row]) -> str:
    """Return the results as rows of the table in docs/delivery.md, and what is told beside."""
    lines, told = [], []
    for fault, tally, _ in rows:
        cells = " | ".join(f"{getattr(tally, name):,}" for name in _FIGURES)
        what = fault.what.partition(";")[0]
        lines.append(f"| {fault.name}: {what} | {cells} | {tally.recovery:.1f} |")
        told += [
            f"- {fault.name}: {each}"
            for each in (*tally.lacking, *tally.broken, *tally.late, *tally.notes)
        ]
    return "\n".join((*lines, "", *told))


def _late(fault: Fault, tally: Tally) -> int:
    return sum(seconds > fault.recovers_in for seconds in tally.recoveries)


def _verdict(fault: Fault, tally: Tally) -> str:
    if tally.not_tried:
        return "NOT TRIED"
    if not tally.is_clean:
        return "BROKEN"
    return "late" if tally.late or _late(fault, tally) else "kept"
