"""The ids of late."""

from bridge.core.recent import Recent


def test_the_last_ones_are_known_and_old_ones_are_forgotten() -> None:
    recent = Recent(3)
    for number in range(20):
        recent.add([str(number)])
        assert all(str(each) in recent for each in range(max(0, number - 2), number + 1))
        assert sum(str(each) in recent for each in range(20)) <= 6
    assert recent.has_any({"x", "19"})
    assert not recent.has_any({"x", "1"})


def test_nothing_is_known_after_clearing() -> None:
    recent = Recent(3)
    recent.add("abcd")
    recent.add("e")
    recent.clear()
    assert not recent.has_any(set("abcde"))
    assert "e" not in recent
