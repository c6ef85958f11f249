"""`core.heights`: which heights are missing."""

from collections.abc import Iterable

import pytest

from bridge.core.heights import (
    MAX_JUMP,
    Gap,
    GapOpened,
    GapResolved,
    Heights,
    JumpRefused,
    Signal,
    observe,
)


def after(heights: Iterable[int], state: Heights | None = None) -> tuple[Heights, list[Signal]]:
    state, signals = state or Heights(), []
    for at, height in enumerate(heights):
        state, signal = observe(state, height, at)
        signals += [signal] if signal else []
    return state, signals


def gap(first: int, last: int, at: int, *missing: tuple[int, int]) -> Gap:
    return Gap(first, last, at, missing or ((first, last),))


@pytest.mark.parametrize(
    ("heights", "highest", "gaps", "signals"),
    [
        ([], None, (), []),
        ([7], 7, (), []),
        ([0, 1, 2, 3], 3, (), []),
        ([1, 1, 2, 1, 2], 2, (), []),
        ([5, 3, 6], 6, (), []),
        ([1, 4], 4, (gap(2, 3, 1),), [GapOpened(gap(2, 3, 1))]),
        ([1, 3, 2], 3, (), [GapOpened(gap(2, 2, 1)), GapResolved(gap(2, 2, 1))]),
        ([1, 6, 3], 6, (gap(2, 5, 1, (2, 2), (4, 5)),), [GapOpened(gap(2, 5, 1))]),
        ([1, 6, 3, 3], 6, (gap(2, 5, 1, (2, 2), (4, 5)),), [GapOpened(gap(2, 5, 1))]),
        (
            [1, 4, 7],
            7,
            (gap(2, 3, 1), gap(5, 6, 2)),
            [GapOpened(gap(2, 3, 1)), GapOpened(gap(5, 6, 2))],
        ),
        (
            [1, 4, 7, 5, 6],
            7,
            (gap(2, 3, 1),),
            [GapOpened(gap(2, 3, 1)), GapOpened(gap(5, 6, 2)), GapResolved(gap(5, 6, 2, (6, 6)))],
        ),
    ],
)
def test_heights_open_and_resolve_gaps(
    heights: list[int], highest: int | None, gaps: tuple[Gap, ...], signals: list[Signal]
) -> None:
    assert after(heights) == (Heights(highest, gaps), signals)


def test_a_height_too_far_ahead_is_told_once_and_changes_nothing() -> None:
    state, signals = after([10, 10 + MAX_JUMP + 1, 2**32 - 1])
    assert signals == [JumpRefused(10 + MAX_JUMP + 1, 10)]
    assert (state.highest, state.gaps) == (10, ())
    state, signals = after([11, 2**32 - 1], state)
    assert signals == [JumpRefused(2**32 - 1, 11)]


def test_the_longest_jump_believed_is_one_range() -> None:
    state, signals = after([10, 10 + MAX_JUMP])
    assert signals == [GapOpened(gap(11, 9 + MAX_JUMP, 1))]
    assert state.missing == MAX_JUMP - 1


def test_missing_counts_the_heights_of_all_gaps() -> None:
    assert after([1, 4, 10, 6])[0].missing == 2 + 4


@pytest.mark.parametrize("heights", [[], [3], [1, 6, 3, 9], [1, 2**32 - 1]])
def test_the_state_comes_back_from_its_bytes(heights: list[int]) -> None:
    state, _ = after(heights)
    assert Heights.from_bytes(state.to_bytes()) == state
    assert Heights.from_bytes(None) == Heights()
