"""`stages.turns`: pages that wait on their own."""

from hypothesis import given, strategies as st

from bridge.stages.turns import Turn, Turns

Range = tuple[int, int]


def turns(page: int = 10, waits: tuple[float, float] = (1, 300), patience: int = 5) -> Turns:
    return Turns(page, waits, patience)


def looked(some: Turns, *wanted: Range) -> list[tuple[int, int, int]]:
    return [(turn.first, turn.last, turn.vain) for turn in some.look(wanted)]


def test_ranges_are_cut_into_pages_lowest_first() -> None:
    assert looked(turns(), (2, 24), (26, 29)) == [
        (2, 11, 0),
        (12, 21, 0),
        (22, 24, 0),
        (26, 29, 0),
    ]


def test_a_million_heights_are_cut_as_they_are_looked_at() -> None:
    assert next(turns().look([(2, 900_000)])) == Turn(2, 11)


def test_of_a_page_that_came_in_part_the_rest_alone_was_in_vain() -> None:
    some = turns()
    some.failed(Turn(2, 11), 0)
    assert looked(some, (3, 3), (7, 24)) == [(3, 3, 1), (7, 11, 1), (12, 21, 0), (22, 24, 0)]
    assert some.waiting == 2


def test_what_is_wanted_no_more_is_forgotten() -> None:
    some = turns()
    some.failed(Turn(2, 11), 0)
    assert looked(some, (12, 13)) == [(12, 13, 0)]
    assert some.waiting == 0
    assert looked(some, (2, 13)) == [(2, 11, 0), (12, 13, 0)]


def test_each_time_in_vain_the_wait_doubles_and_is_the_longest_when_patience_ends() -> None:
    some = turns()
    turn, waits = Turn(2, 11), []
    for _ in range(6):
        turn = some.failed(turn, 1_000)
        waits.append(turn.due - 1_000)
    for wait, longest in zip(waits, (1, 2, 4, 8, 300, 300), strict=True):
        assert longest / 2 <= wait <= longest


def test_the_longest_wait_is_never_exceeded() -> None:
    some = turns(patience=10_000)
    turn = Turn(2, 11, vain=5_000)
    assert 150 <= some.failed(turn, 0).due <= 300


def test_ten_thousand_waiting_pages_are_enough() -> None:
    some = turns(page=1)
    wanted = [(height, height) for height in range(0, 20_002, 2)]
    for first, last in wanted[:10_000]:
        some.failed(Turn(first, last), 0)
    assert len(looked(some, *wanted)) == 10_000
    assert looked(some, *wanted[1:])[-1] == (20_000, 20_000, 0)


@st.composite
def ranges(draw: st.DrawFn) -> list[Range]:
    heights = sorted(draw(st.sets(st.integers(0, 60))))
    found: list[Range] = []
    for height in heights:
        if found and found[-1][1] == height - 1:
            found[-1] = (found[-1][0], height)
        else:
            found.append((height, height))
    return found


@given(looks=st.lists(st.tuples(ranges(), st.integers(0, 20)), max_size=20))
def test_each_wanted_height_is_in_exactly_one_turn(looks: list[tuple[list[Range], int]]) -> None:
    some = turns(page=4)
    for wanted, choice in looks:
        found = list(some.look(wanted))
        heights = [height for turn in found for height in range(turn.first, turn.last + 1)]
        assert heights == [height for first, last in wanted for height in range(first, last + 1)]
        if found:
            some.failed(found[choice % len(found)], 0)
