"""Heights in any order: what is missing is in exactly one gap, and each gap ends once."""

from hypothesis import given, strategies as st

from bridge.core.heights import MAX_JUMP, GapOpened, GapResolved, Heights, JumpRefused, observe

near = st.integers(0, 40)
heights = st.lists(st.one_of(near, near, near, st.integers(0, 2**32 - 1)), max_size=60)


def missing_of(state: Heights) -> list[int]:
    return [
        height
        for gap in state.gaps
        for first, last in gap.missing
        for height in range(first, last + 1)
    ]


def believed(seen: list[int]) -> list[int]:
    """The heights of `seen` that are not taken for forged, by the definition itself."""
    found: list[int] = []
    for height in seen:
        if not found or height - max(found) <= MAX_JUMP:
            found.append(height)
    return found


@given(st.lists(near, max_size=60))
def test_a_height_is_missing_if_it_was_passed_over_and_never_came(seen: list[int]) -> None:
    state = Heights()
    for height in seen:
        state, _ = observe(state, height, 0)
    between = range(seen[0], max(seen)) if seen else range(0)
    # Ascending, and each in exactly one gap.
    assert missing_of(state) == [height for height in between if height not in seen]
    assert state.missing == len(missing_of(state))
    assert state.highest == (max(seen) if seen else None)


@given(heights)
def test_each_gap_opens_once_and_is_resolved_once_when_its_last_height_comes(
    seen: list[int],
) -> None:
    state, opened, resolved = Heights(), [], []
    for at, height in enumerate(seen):
        before = state
        state, signal = observe(state, height, at)
        match signal:
            case GapOpened(gap):
                assert gap.last == height - 1
                assert gap.opened_ns == at
                opened.append((gap.first, gap.last))
            case GapResolved(gap):
                assert gap.missing == ((height, height),)
                resolved.append((gap.first, gap.last))
            case JumpRefused():
                assert (state.highest, state.gaps) == (before.highest, before.gaps)
    assert len(set(opened)) == len(opened)
    still_open = [(gap.first, gap.last) for gap in state.gaps]
    assert sorted(resolved + still_open) == sorted(opened)


@given(heights)
def test_forged_heights_change_nothing(seen: list[int]) -> None:
    state = plain = Heights()
    for height in seen:
        state, _ = observe(state, height, 0)
    for height in believed(seen):
        plain, signal = observe(plain, height, 0)
        assert not isinstance(signal, JumpRefused)
    assert (state.highest, state.gaps) == (plain.highest, plain.gaps)


@given(heights)
def test_gaps_are_ranges_and_the_state_survives_its_bytes(seen: list[int]) -> None:
    state = Heights()
    for at, height in enumerate(seen):
        state, _ = observe(state, height, at)
        assert sum(len(gap.missing) for gap in state.gaps) <= len(seen)
        again = Heights.from_bytes(state.to_bytes())
        assert again == state
        assert observe(again, 20, 99) == observe(state, 20, 99)


@given(heights, near)
def test_a_height_twice_in_a_row_tells_nothing_new(seen: list[int], height: int) -> None:
    state = Heights()
    for one in [*seen, height]:
        state, _ = observe(state, one, 0)
    assert observe(state, height, 1)[1] is None
