"""`core.flight` against a model: who kills is found, and random kills condemn nobody."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

from hypothesis import given, settings, strategies as st

from bridge.core.flight import PAGE_BYTES, Flight, Work
from bridge.core.framing import frame
from bridge.model import Group, Run

WORKS = list(Work)
_EPOCH = "0123456789abcdef"


def groups_of(sizes: list[int]) -> list[Group]:
    found, first = [], 1
    for size in sizes:
        found.append(Group(first, first + size - 1, (Run("tcp/1", 1, size, frame(b"x") * size),)))
        first += size
    return found


class Machine:
    """Lives of a process, on one page, over one journal; it dies of poison, and when it is killed.

    `deaths` counts, by record and work, the deaths with the record in flight since that work came
    through it.
    """

    def __init__(self, groups: list[Group], poison: set[tuple[int, Work]], seed: int) -> None:
        self.groups = groups
        self.poison = poison
        self.random = random.Random(seed)
        self.page = bytearray(PAGE_BYTES)
        self.deaths: Counter[tuple[int, Work]] = Counter()
        self.checkpoints = dict.fromkeys(WORKS, 0)
        """Groups that each work is durably done with."""
        self.quarantined: set[int] = set()
        self.lives = 0

    def live(self, kill_at: int | None) -> bool:
        """Live until death, or until all is done; say whether it was. `kill_at` counts steps."""
        self.lives += 1
        flight = Flight(memoryview(self.page), _EPOCH, self.groups[-1].last)
        for seq in flight.quarantined - self.quarantined:
            assert sum(self.deaths[seq, work] for work in WORKS) >= 3, "condemned without cause"
        assert self.quarantined <= flight.quarantined
        self.quarantined = set(flight.quarantined)
        works = {work: self._work(work, flight) for work in WORKS}
        step = 0
        while works:
            work = self.random.choice(list(works))
            if step == kill_at:
                return False
            step += 1
            part = next(works[work], None)
            if part is None:
                del works[work]
                continue
            seqs = range(part.first, part.last + 1)
            if step == kill_at or any((seq, work) in self.poison for seq in seqs):
                for seq in seqs:
                    self.deaths[seq, work] += 1
                return False
            step += 1
            flight.end(work, part)
            for seq in seqs:
                self.deaths[seq, work] = 0
        return True

    def _work(self, work: Work, flight: Flight) -> Iterator[Group]:
        begin = self.checkpoints[work]
        for number, group in enumerate(self.groups[begin:], begin):
            for part in flight.parts(group):
                if not flight.bars(part):
                    flight.begin(work, part)
                    yield part
            if self.random.random() < 0.3:
                self.checkpoints[work] = number


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    poison=st.sets(st.tuples(st.integers(1, 25), st.sampled_from(WORKS)), max_size=4),
    kills=st.lists(st.integers(0, 30), max_size=12),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=300, deadline=None)
def test_what_kills_is_quarantined_and_nothing_else(
    sizes: list[int], poison: set[tuple[int, Work]], kills: list[int], seed: int
) -> None:
    groups = groups_of(sizes)
    poison = {(seq, work) for seq, work in poison if seq <= groups[-1].last}
    machine = Machine(groups, poison, seed)
    moments = iter(kills)
    while not machine.live(next(moments, None)):
        assert machine.lives <= 3 * len(poison) + 2 * len(kills) + 1, "it dies without an end"
    killers = {seq for seq, _ in poison}
    assert machine.quarantined >= killers
    if not kills:
        assert machine.quarantined == killers


@given(sizes=st.lists(st.integers(1, 8), min_size=1, max_size=6), seed=st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_two_kills_in_a_row_at_any_moments_condemn_nobody(sizes: list[int], seed: int) -> None:
    machine = Machine(groups_of(sizes), set(), seed)
    for _ in range(20):
        for _ in range(2):
            machine.live(machine.random.randrange(40))
        machine.checkpoints = dict.fromkeys(WORKS, 0)
        assert machine.live(None)
    assert machine.quarantined == set()


@given(page=st.binary(max_size=PAGE_BYTES), head=st.integers(0, 2**40), first=st.integers(1, 2**40))
def test_any_bytes_are_a_page(page: bytes, head: int, first: int) -> None:
    held = bytearray(page.ljust(PAGE_BYTES, b"\0"))
    flight = Flight(memoryview(held), _EPOCH, head)
    group = Group(first, first, (Run("tcp/1", 1, 1, frame(b"x")),))
    assert [part.first for part in flight.each(Work.RENDERING, group)] == [first]
