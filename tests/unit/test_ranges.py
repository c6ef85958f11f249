"""`core.ranges`: heights as ranges."""

import pytest
from hypothesis import given, strategies as st

from bridge.core.ranges import Range, Ranges

heights = st.lists(st.integers(0, 60), unique=True)


def ranges_of(added: list[int]) -> Ranges:
    ranges = Ranges()
    for height in added:
        ranges.add(height)
    return ranges


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        ([], []),
        ([5], [(5, 5)]),
        ([5, 6], [(5, 6)]),
        ([6, 5], [(5, 6)]),
        ([5, 7, 6], [(5, 7)]),
        ([2**32 - 1, 0], [(0, 0), (2**32 - 1, 2**32 - 1)]),
    ],
)
def test_heights_beside_each_other_are_one_range(
    added: list[int], expected: list[tuple[int, int]]
) -> None:
    assert list(ranges_of(added)) == expected


def test_holes_are_what_is_not_in_it() -> None:
    ranges = ranges_of([3, 4, 7])
    assert list(ranges.holes(0, 9)) == [Range(0, 2), Range(5, 6), Range(8, 9)]
    assert list(ranges.holes(3, 4)) == []
    assert list(ranges.holes(4, 5)) == [Range(5, 5)]
    assert list(Ranges().holes(1, 2**32)) == [Range(1, 2**32)]
    assert list(ranges.holes(9, 8)) == []


@given(heights, st.integers(0, 70), st.integers(0, 70))
def test_it_holds_what_a_set_holds(added: list[int], first: int, last: int) -> None:
    ranges, model = ranges_of(added), set(added)
    assert [height for height in range(70) if height in ranges] == sorted(model)
    assert (ranges.lowest, ranges.highest) == (min(model, default=None), max(model, default=None))
    holes = [height for a, b in ranges.holes(first, last) for height in range(a, b + 1)]
    assert holes == [height for height in range(first, last + 1) if height not in model]
    assert list(Ranges(sorted(model))) == list(ranges)
    assert len(ranges) == len(list(ranges))
