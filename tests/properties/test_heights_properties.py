"""Feeds as bad as they come: what is missing is in exactly one gap, and each gap is told truly.

Two machines: in the first all that is true can be told by a model of a set and a list, and in the
second anything may come, and what is said must hold together.
"""

from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bridge.core.gaps import MOST_GAPS
from bridge.core.heights import Verdict
from bridge.core.signals import Signal, Status, Trouble
from bridge.model import Asked, Sought, Tip, Unobtainable, Way
from tests.support.chains import FedHeights, MadeChain

# 2 machines of 200 examples with 50 steps each.
STEPS = settings(max_examples=200, stateful_step_count=50)
START = 250  # near the end of a chunk of the table
ways = st.sampled_from(list(Way))
few = st.integers(0, 12)


def life(signals: list[Signal]) -> dict[str, list[Signal]]:
    lives = defaultdict(list)
    for signal in signals:
        lives[signal.id].append(signal)
    return lives


class Fed(RuleBasedStateMachine):
    """What both machines have: a tracker, restarts and crashes, and what must hold always."""

    def __init__(self) -> None:
        super().__init__()
        self.fed = FedHeights()
        self.since_commit: list[Callable[[], object]] = []
        self.runs = 0
        """As they were committed: a chain that is adopted since has others."""

    def do(self, step: Callable[[], object]) -> object:
        """Feed something; it is fed again if the tracker crashes before the next commit."""
        self.since_commit.append(step)
        return step()

    def commit(self) -> None:
        self.fed.take()
        self.since_commit.clear()
        self.runs = len(self.fed.heights._chain.present)

    def gaps(self) -> list[tuple[object, ...]]:
        return [(gap.id, gap.first, gap.last, gap.missing) for gap in self.fed.heights.gaps]

    @rule()
    def committed(self) -> None:
        self.commit()

    @rule(away=st.sampled_from([0.0, 3.0, 10_000.0]))
    def restarted(self, away: float) -> None:
        self.commit()
        before = self.gaps(), list(self.fed.heights.missing_ranges()), self.fed.heights.missing
        self.fed.restart(away)
        heights = self.fed.heights
        assert (self.gaps(), list(heights.missing_ranges()), heights.missing) == before

    @rule()
    def crashed(self) -> None:
        """What was not committed is fed again, and comes to the same."""
        before = self.gaps(), list(self.fed.heights._chain.present)
        doubted = [doubt.block for doubt in self.fed.heights._doubts.ascending()]
        self.fed.restart()
        for step in self.since_commit:
            step()
        assert (self.gaps(), list(self.fed.heights._chain.present)) == before
        assert [doubt.block for doubt in self.fed.heights._doubts.ascending()] == doubted

    def pass_time(self, seconds: float) -> None:
        # Timers begin anew with a restart: what is done by the clock is committed at once.
        self.commit()
        self.fed.wait(seconds, step=seconds if seconds > 100 else 1.0)
        self.commit()

    @invariant()
    def gaps_are_apart_and_count_what_they_miss(self) -> None:
        heights = self.fed.heights
        for one, other in pairwise(heights.gaps):
            assert one.last < other.first
        assert heights._holes.gaps._firsts == [gap.first for gap in heights.gaps]
        total = 0
        for gap in heights.gaps:
            missing = sum(b - a + 1 for a, b in heights._holes.gaps.missing_of(gap))
            assert gap.missing == missing > 0
            total += missing if gap.status is not Status.SEEN else 0
        assert heights.missing == total
        assert len(heights.gaps) <= MOST_GAPS

    @invariant()
    def rows_are_few_and_small(self) -> None:
        # Ends of runs, gaps, chunks (no more than runs here, and one per 256 heights), single rows.
        chunks = sum(name.startswith("heights/key/") for name in self.fed.items)
        gaps = sum(name.startswith("heights/gap/") for name in self.fed.items)
        assert len(self.fed.items) <= 2 * self.runs + gaps + chunks + 6
        assert all(len(value) < 50_000 for value in self.fed.items.values())

    def teardown(self) -> None:
        self.commit()
        self.pass_time(self.fed.bounds.update_every + 1)
        heights = self.fed.heights
        table = {
            gap.id: tuple(heights._holes.gaps.missing_of(gap))
            for gap in heights.gaps
            if gap.status is not Status.SEEN
        }
        assert self.fed.open == table
        for told in life(self.fed.signals).values():
            self.is_a_life(told)

    def is_a_life(self, told: list[Signal]) -> None:
        """Opened once and first, ended once at most and last, and never the same twice in a row."""
        first, last = told[0], told[-1]
        if first.trouble is Trouble.JUMP:
            assert [each.status for each in told] == [Status.UNRESOLVED]
            return
        statuses = [each.status for each in told]
        assert statuses.count(Status.OPENED) == 1
        assert first.status is Status.OPENED
        ended = [each for each in told if each.trouble is Trouble.GAP and not each.count]
        assert ended in ([], [last])
        assert statuses[:-1].count(Status.RESOLVED) == 0
        for one, other in pairwise(told):
            assert facts(one) != facts(other)
            assert one.changed_ns <= other.changed_ns
        updates = [each.changed_ns for each in told if each.status is Status.UPDATED]
        for one_ns, other_ns in pairwise(updates):
            assert other_ns - one_ns >= self.fed.bounds.update_every * 1_000_000_000


def facts(signal: Signal) -> tuple[object, ...]:
    return (
        *(signal.status, signal.first, signal.last, signal.missing, signal.count),
        *(signal.cause, signal.attempts, signal.after, signal.why),
    )


class TrueFeed(Fed):
    """Losses, repeats, other orders, two nodes, the node's API; and forged heights far above."""

    def __init__(self) -> None:
        super().__init__()
        self.next = START
        self.sent: set[int] = set()
        self.lost: list[int] = []
        self.top = START - 1
        self.floor = START

    def send(self, height: int, way: Way = Way.LIVE) -> None:
        self.do(lambda: self.fed.block(height, way=way))
        self.sent.add(height)
        self.top = max(self.top, height)
        self.lost = [each for each in self.lost if each != height]

    @initialize()
    def first(self) -> None:
        self.grow([True], tell=True)

    @rule(came=st.lists(st.sampled_from([True] * 9 + [False]), min_size=1, max_size=6))
    def grows(self, came: list[bool]) -> None:
        self.grow(came, tell=True)

    @rule(came=st.lists(st.booleans(), min_size=1, max_size=3), tell=st.booleans())
    def grows_badly(self, came: list[bool], tell: bool) -> None:
        self.grow(came, tell=tell)

    @rule(count=st.integers(4, 12))
    def goes_dark(self, count: int) -> None:
        self.grow([False] * count, tell=False)
        self.grow([True], tell=True)
        self.time_passes(31)

    @rule(count=st.integers(2, 12), seconds=st.sampled_from([0.5, 1.0, 4.0]), way=ways)
    def is_filled_bit_by_bit(self, count: int, seconds: float, way: Way) -> None:
        for height in self.lost[:count]:
            self.send(height, way)
            self.pass_time(seconds)

    def grow(self, came: list[bool], *, tell: bool) -> None:
        for each in came:
            if self.fed.heights._doubts:
                # A block takes its time, and a forged one does not wait until the chain is there.
                self.time_passes(100)
            height = self.next
            self.next += 1
            if each:
                self.send(height)
            else:
                self.lost.append(height)
            if tell:
                self.do(lambda told=height + 1: self.fed.told(told))  # type: ignore[misc]

    @rule(back=few, way=ways)
    def repeats(self, back: int, way: Way) -> None:
        height = max(START, self.next - 1 - back)
        if height in self.sent:
            self.send(height, way)

    @rule(place=few, way=ways)
    def comes_late(self, place: int, way: Way) -> None:
        if self.lost:
            self.send(self.lost[place % len(self.lost)], way)

    @rule(first=few, count=few)
    def is_replayed(self, first: int, count: int) -> None:
        for height in range(START + first, min(START + first + count, self.next)):
            self.send(height, Way.REPLAY)

    @rule(far=st.one_of(st.integers(8, 50), st.integers(8, 2**32 - 1 - 2_000)))
    def is_forged(self, far: int) -> None:
        height = min(self.next + far, 2**32 - 1)
        forged = MadeChain(f"forged {height}")
        judged = self.do(lambda: self.fed.block(height, chain=forged))
        assert judged is Verdict.DOUBTED

    @rule(height=st.integers(0, 2**32 - 1))
    def does_not_verify(self, height: int) -> None:
        judged = self.do(lambda: self.fed.block(height, wrong="key-merkle-root"))
        assert judged is Verdict.UNVERIFIED

    @rule(seconds=st.sampled_from([0.1, 3.0, 20.0, 31.0, 90.0, 100_000.0]))
    def time_passes(self, seconds: float) -> None:
        if seconds > 30:
            # As the API says each minute: it is what a forged block does not survive.
            self.tip()
        self.pass_time(seconds)

    @rule()
    def tip(self) -> None:
        height = self.next - 1
        self.do(lambda: self.fed.note(Tip(height)))
        self.top = max(self.top, height)

    @rule(first=few, count=few, way=ways)
    def is_asked(self, first: int, count: int, way: Way) -> None:
        self.do(lambda: self.fed.note(Asked(START + first, START + first + count, way)))

    @rule(first=few, count=few)
    def is_unobtainable(self, first: int, count: int) -> None:
        last = START + first + count
        self.do(lambda: self.fed.note(Unobtainable(START + first, last, "no way")))

    @rule(below=few)
    def is_sought(self, below: int) -> None:
        first = START - below
        self.do(lambda: self.fed.note(Sought(first, START)))
        self.floor = min(self.floor, first)

    @invariant()
    def what_is_missing_is_what_did_not_come(self) -> None:
        doubted = {doubt.block.height for doubt in self.fed.heights._doubts.ascending()}
        there = self.sent - doubted
        top = max([*there, self.top if self.top not in doubted else 0], default=0)
        gaps = [(gap.first, gap.last) for gap in self.fed.heights.gaps]
        top = max([top if top in there else 0, *there, *(last for _, last in gaps)])
        assert self.fed.missing() == [h for h in range(self.floor, top + 1) if h not in there]
        if not doubted:
            assert top == self.top


class AnyFeed(Fed):
    """Forged blocks and minutes anywhere, forks, other networks, other chains that take over."""

    heights = st.one_of(
        *[st.integers(START - 5, START + 20)] * 3,
        st.integers(0, 600),
        st.integers(0, 2**32 - 1),
    )
    chains = st.sampled_from(
        [
            *[MadeChain()] * 6,
            *[MadeChain("other")] * 2,
            MadeChain().forked(START + 4, "fork"),
            MadeChain(network=7),
        ]
    )

    @rule(first=heights, count=st.integers(1, 6), chain=chains, way=ways)
    def blocks(self, first: int, count: int, chain: MadeChain, way: Way) -> None:
        for height in range(first, min(first + count, 2**32)):
            self.do(lambda h=height: self.fed.block(h, chain=chain, way=way))  # type: ignore[misc]

    @rule(height=heights, wrong=st.sampled_from(["key-merkle-root", "admin-block"]))
    def does_not_verify(self, height: int, wrong: str) -> None:
        self.do(lambda: self.fed.block(height, wrong=wrong))

    @rule(height=heights)
    def minute(self, height: int) -> None:
        self.do(lambda: self.fed.told(height))

    @rule(height=heights)
    def tip(self, height: int) -> None:
        self.do(lambda: self.fed.note(Tip(height)))

    @rule(first=heights, count=few, way=ways)
    def is_asked(self, first: int, count: int, way: Way) -> None:
        self.do(lambda: self.fed.note(Asked(first, first + count, way)))

    @rule(first=heights, count=st.integers(0, 2**32))
    def is_unobtainable(self, first: int, count: int) -> None:
        self.do(lambda: self.fed.note(Unobtainable(first, first + count, "no way")))

    @rule(first=heights, count=st.one_of(few, st.integers(0, 2**32)))
    def is_sought(self, first: int, count: int) -> None:
        self.do(lambda: self.fed.note(Sought(first, first + count)))

    @rule(seconds=st.sampled_from([0.1, 3.0, 31.0, 130.0, 100_000.0]))
    def time_passes(self, seconds: float) -> None:
        self.pass_time(seconds)


TestTrueFeed = TrueFeed.TestCase
TestTrueFeed.settings = STEPS
TestAnyFeed = AnyFeed.TestCase
TestAnyFeed.settings = STEPS
