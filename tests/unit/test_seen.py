"""`core.seen`: which commits and reveals came lately."""

from bridge.core.seen import Seen


class Kept:
    """`Seen` with the items that the journal would hold of it."""

    def __init__(self, most: int = 250_000) -> None:
        self.items: dict[str, bytes] = {"other/1": b"not its own"}
        self.most = most
        self.restart()

    def restart(self) -> None:
        self.seen = Seen(list(self.items.items()), self.most)

    def saw(self, seq: int, *ids: int) -> None:
        self.seen.saw(seq, ids)
        for name, row in self.seen.take().items():
            if row is None:
                self.items.pop(name, None)
            else:
                self.items[name] = row


def test_what_came_is_known_also_after_a_restart() -> None:
    kept = Kept()
    kept.saw(1, 5, 2**64 - 1, 0)
    assert all(each in kept.seen for each in (0, 5, 2**64 - 1))
    kept.restart()
    assert all(each in kept.seen for each in (0, 5, 2**64 - 1))
    assert 6 not in kept.seen


def test_the_oldest_rows_fall_out_and_at_least_the_latest_are_kept() -> None:
    kept = Kept(most=2000)
    for seq in range(20):
        kept.saw(seq, *range(seq * 600, seq * 600 + 600))
    known = [each for each in range(20 * 600) if each in kept.seen]
    assert known == list(range(16 * 600, 20 * 600))
    assert sum(map(len, kept.items.values())) < 8 * 2600 + 20
    kept.restart()
    assert [each for each in range(20 * 600) if each in kept.seen] == known
    kept.saw(20, *range(12_000, 12_600))
    assert 16 * 600 not in kept.seen
    assert 17 * 600 in kept.seen


def test_an_event_that_comes_over_and_over_takes_no_room() -> None:
    kept = Kept(most=2)
    kept.saw(1, 1, 2, 1, 2)
    before = dict(kept.items)
    for seq in range(2, 1000):
        kept.saw(seq, 1, 2, 2)
    assert kept.items == before
    assert kept.seen.take() == {}


def test_few_identities_at_a_time_are_gathered_in_few_rows() -> None:
    kept = Kept()
    for seq in range(10_000):
        kept.saw(seq, seq)
    assert len(kept.items) <= 2 + 10_000 // 512
    kept.restart()
    assert all(each in kept.seen for each in range(10_000))


def test_many_steps_that_end_with_one_record_do_not_overwrite_each_other() -> None:
    kept = Kept()
    kept.saw(7, *range(1000))
    kept.saw(7, *range(1000, 2000))
    kept.restart()
    assert all(each in kept.seen for each in range(2000))
