"""`core.pace`: how fast blocks and minutes come, and when they stay away."""

from bridge.core.pace import Pace

SHORTEST, LONGEST = 60.0, 1200.0


def pace(now: float = 0.0, stored: dict[str, bytes | None] | None = None) -> Pace:
    items = [(name, value) for name, value in (stored or {}).items() if value is not None]
    return Pace(items, now, shortest=SHORTEST, longest=LONGEST)


def run(pace: Pace, blocks: int, minute: float, start: float = 0.0) -> float:
    """Feed blocks of ten minutes each; return the time of the last minute."""
    now = start
    for _ in range(blocks):
        pace.block(now)
        for _ in range(10):
            pace.minute(now)
            now += minute
    return now - minute


def test_nothing_is_late_before_the_longest_stall_while_no_pace_is_known() -> None:
    assert pace().late(LONGEST - 1) == ""
    assert pace().late(LONGEST) == "neither a block nor a minute came for 1200 s"


def test_minutes_are_late_after_three_times_their_pace() -> None:
    learned = pace()
    last = run(learned, 4, 40)
    assert learned.late(last + 119) == ""
    assert learned.late(last + 120) == "neither a block nor a minute came for 120 s"


def test_blocks_are_late_after_two_and_a_half_times_their_pace_while_minutes_come() -> None:
    learned = pace()
    last = run(learned, 5, 40)
    began = last - 9 * 40
    for minute in range(1, 16):
        learned.minute(last + 40 * minute)
    assert learned.late(began + 999) == ""
    assert learned.late(began + 1_000) == "minutes come, but no block came for 1000 s"


def test_what_is_late_is_between_the_shortest_and_the_longest_stall() -> None:
    fast, slow = pace(), pace()
    last = run(fast, 4, 10)
    assert (fast.late(last + SHORTEST - 1), bool(fast.late(last + SHORTEST))) == ("", True)
    last = run(slow, 4, 600)
    slow.block(last)
    assert (slow.late(last + LONGEST - 1), bool(slow.late(last + LONGEST))) == ("", True)


def test_an_outage_is_no_pace() -> None:
    learned = pace()
    last = run(learned, 4, 40)
    last = run(learned, 1, 40, last + 100_000)
    assert learned.late(last + 120)


def test_a_burst_is_no_pace() -> None:
    learned = pace()
    last = run(learned, 4, 60)
    last = run(learned, 30, 0.05, last)
    assert learned.late(last + 179) == ""


def test_minutes_that_two_nodes_tell_count_once() -> None:
    learned = pace()
    learned.block(20 * 60.0)
    for minute in range(30):
        learned.minute(60.0 * minute)
        learned.minute(60.0 * minute + 0.3)
    assert learned.late(29 * 60 + 179) == ""
    assert learned.late(29 * 60 + 181)


def test_after_a_silence_a_block_is_waited_for_anew() -> None:
    learned = pace()
    last = run(learned, 4, 40) + 10_000
    assert learned.late(last)
    learned.minute(last)
    assert learned.late(last) == ""


def test_a_node_is_silent_if_it_says_nothing_at_all() -> None:
    learned = pace()
    assert learned.silent(SHORTEST)
    learned.heard(SHORTEST)
    assert not learned.silent(SHORTEST + 1)


def test_the_pace_is_stored_and_the_time_begins_anew() -> None:
    learned = pace()
    last = run(learned, 4, 40)
    stored = learned.take()
    assert learned.take() == {}
    assert len(stored) == 1
    again = pace(last + 10_000, stored)
    assert again.late(last + 10_119) == ""
    assert again.late(last + 10_120)
