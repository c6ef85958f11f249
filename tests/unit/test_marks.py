"""`journal.marks`: what is older than the horizon, by a clock that the test moves."""

from bridge.journal.marks import Marks


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_number_is_expired_when_the_head_was_there_a_horizon_ago() -> None:
    clock = Clock()
    marks = Marks(60, 5, clock)
    assert marks.expired(5) == 0
    clock.now += 30
    assert marks.expired(8) == 0
    clock.now += 29
    assert marks.expired(9) == 0
    clock.now += 1
    assert marks.expired(9) == 5
    clock.now += 30
    assert marks.expired(9) == 8
    clock.now += 1000
    assert marks.expired(9) == 9


def test_a_horizon_of_nothing_keeps_nothing() -> None:
    marks = Marks(0, 5, Clock())
    assert (marks.expired(5), marks.expired(7)) == (5, 7)


def test_a_day_of_looks_four_times_a_second_leaves_a_thousand_marks() -> None:
    clock = Clock()
    marks = Marks(86_400, 0, clock)
    for seen in range(86_400 * 4):
        clock.now += 0.25
        expired = marks.expired(seen)
    assert len(marks) <= 1_001
    assert expired == 0
    clock.now += 100
    assert marks.expired(seen) > 0
