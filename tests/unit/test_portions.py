"""Portions of what one commit made durable."""

from __future__ import annotations

from hypothesis import given, strategies as st

from bridge.core.framing import frame
from bridge.core.portions import LARGE_BYTES, is_large, portions, weight
from bridge.model import Group, RecordType, Run


def _run(number: int, sizes: list[int], type_: int = RecordType.FEED) -> Run:
    payloads = [bytes([number & 0xFF]) * size for size in sizes]
    frames = b"".join(frame(payload, type_) for payload in payloads)
    return Run(f"tcp/{number}", number, len(sizes), frames)


def _group(runs: list[Run], first: int = 7) -> Group:
    return Group(first, first + sum(run.records for run in runs) - 1, tuple(runs))


_SIZES = st.sampled_from([0, 1, 200, 100_000, LARGE_BYTES - 5, LARGE_BYTES, 600_000])
_RUNS = st.lists(
    st.tuples(st.lists(_SIZES, min_size=1, max_size=6), st.sampled_from(RecordType)), max_size=8
)


@given(_RUNS)
def test_the_portions_are_the_records_in_order_and_none_is_large(
    made: list[tuple[list[int], RecordType]],
) -> None:
    group = _group([_run(number, sizes, type_) for number, (sizes, type_) in enumerate(made)])
    parts = list(portions(group))
    runs = [run for part in parts for run in part.runs]
    assert b"".join(run.frames for run in runs) == b"".join(run.frames for run in group.runs)
    seq = group.first
    for part in parts:
        assert part.first == seq
        seq += sum(run.records for run in part.runs)
        assert part.last == seq - 1
        assert not is_large(part) or part.first == part.last
    assert seq == group.last + 1
    told = [(run.peer, run.received_ns) for run in runs for _ in range(run.records)]
    assert told == [(run.peer, run.received_ns) for run in group.runs for _ in range(run.records)]


def test_many_small_runs_are_one_portion() -> None:
    """Of datagrams each is a run."""
    (part,) = portions(_group([_run(number, [200]) for number in range(1_000)]))
    assert (part.first, part.last, len(part.runs)) == (7, 1_006, 1_000)


def test_what_is_damaged_is_one_portion() -> None:
    group = Group(3, 900, (), "the checksum does not match")
    assert list(portions(group)) == [group]


def test_small_records_weigh_more_than_their_bytes() -> None:
    small, large = _group([_run(1, [190] * 500)]), _group([_run(1, [97_500])])
    assert weight(small) > 2 * weight(large)
