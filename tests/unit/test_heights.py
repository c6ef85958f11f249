"""`core.heights`: which heights are there, which are missing, and why."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from bridge.core import doubts, gaps
from bridge.core.decode import decode
from bridge.core.heights import Verdict
from bridge.core.holes import MAX_JUMP
from bridge.core.signals import Cause, Signal, Status, Trouble
from bridge.core.verify import verify
from bridge.errors import DecodeError
from bridge.model import Asked, Kind, Sought, Tip, Unobtainable, Way
from bridge.pb.bridge.v1.gap_alert_pb2 import GapAlert
from tests.support.captures import CAPTURES, Capture, find_capture, not_here
from tests.support.chains import BOUNDS, FedHeights, MadeChain

OTHER = MadeChain("other")
FORK = MadeChain().forked(13, "fork")
AFTER_GRACE = BOUNDS.grace + 1


@pytest.fixture
def fed() -> FedHeights:
    """A tracker that has the blocks 10 to 12, and whose node works on 13."""
    fed = FedHeights()
    fed.told(10)
    fed.live(10, 11, 12)
    fed.take()
    fed.heights.take_linked()
    return fed


def said(fed: FedHeights) -> list[tuple[str, int, int]]:
    """Status, count and attempts of what was said since the last time."""
    return [(each.status.value, each.count, each.attempts) for each in fed.take()]


def troubles(signals: list[Signal]) -> list[tuple[str, str, int]]:
    return [(each.trouble.value, each.status.value, each.last) for each in signals]


def ranges(fed: FedHeights) -> list[tuple[int, int]]:
    return [tuple(missing) for missing in fed.heights.missing_ranges()]  # type: ignore[misc]


# What is there


def test_blocks_in_order_are_new_and_prove_their_links() -> None:
    fed = FedHeights()
    fed.told(10)
    assert (fed.block(10), fed.heights.take_linked()) == (Verdict.NEW, [])
    assert (fed.block(11), fed.heights.take_linked()) == (Verdict.NEW, [11])
    assert fed.heights.take_linked() == []
    assert (fed.heights.floor, fed.heights.highest, fed.missing()) == (10, 11, [])


def test_a_chain_from_its_beginning_is_proven_from_its_beginning() -> None:
    fed = FedHeights()
    fed.told(1)
    assert (fed.block(0), fed.heights.take_linked()) == (Verdict.NEW, [0])
    assert (fed.block(1), fed.heights.take_linked()) == (Verdict.NEW, [1])


def test_a_block_that_comes_again_is_repeated_and_changes_nothing(fed: FedHeights) -> None:
    assert {fed.block(height) for height in (10, 11, 12)} == {Verdict.REPEATED}
    assert fed.take() == []


def test_the_block_below_the_first_one_extends_the_chain_downwards(fed: FedHeights) -> None:
    assert fed.block(9, way=Way.REPLAY) is Verdict.NEW
    assert fed.heights.take_linked() == [10]
    assert (fed.heights.floor, fed.missing()) == (9, [])


def test_heights_below_the_first_block_are_not_missing(fed: FedHeights) -> None:
    fed.blocks([4, 5], way=Way.REPLAY)
    fed.wait(AFTER_GRACE)
    assert (fed.heights.floor, fed.missing(), fed.take()) == (4, [], [])


def test_what_links_need_is_kept_at_the_edges(fed: FedHeights) -> None:
    main = MadeChain()
    assert fed.heights.links_below(13) == main.block(12).links
    assert fed.heights.links_below(12) is None
    assert fed.heights.key_above(9) == main.block(10).previous_key
    assert fed.heights.key_above(10) is None


def test_what_a_later_verification_knows_more_is_kept_at_an_edge(fed: FedHeights) -> None:
    made = MadeChain().block(12)
    more = replace(made.links, ledger_key=b"l" * 32, credit_full_hash=b"c" * 32)
    assert fed.made(made._replace(links=more)) is Verdict.REPEATED
    assert fed.heights.links_below(13) == more
    fed.block(12)
    assert fed.heights.links_below(13) == more
    fed.take()
    fed.restart()
    assert fed.heights.links_below(13) == more


# Gaps and their grace


def test_heights_that_were_passed_over_are_told_after_the_grace(fed: FedHeights) -> None:
    fed.live(16)
    assert fed.missing() == [13, 14, 15]
    assert (ranges(fed), fed.heights.missing) == ([], 0)
    fed.wait(BOUNDS.grace - 1)
    assert fed.take() == []
    fed.wait(2)
    (opened,) = fed.take()
    assert (opened.id, opened.status, opened.missing) == ("13-15", Status.OPENED, ((13, 15),))
    assert (opened.before, opened.after) == (12, 16)
    assert (ranges(fed), fed.heights.missing) == ([(13, 15)], 3)


def test_what_comes_within_the_grace_is_never_told(fed: FedHeights) -> None:
    fed.live(16)
    fed.wait(20)
    fed.blocks([14, 13, 15])
    fed.wait(100)
    assert (fed.take(), fed.missing(), len(fed.heights.gaps)) == ([], [], 0)


def test_after_the_grace_only_what_is_still_missing_is_told(fed: FedHeights) -> None:
    fed.live(20)
    fed.blocks([13, 16, 19])
    fed.wait(AFTER_GRACE)
    (opened,) = fed.take()
    assert (opened.id, opened.first, opened.last) == ("13-19", 14, 18)
    assert opened.missing == ((14, 15), (17, 18))


def test_a_gap_is_resolved_at_once_when_its_last_height_comes(fed: FedHeights) -> None:
    fed.live(15)
    fed.wait(AFTER_GRACE)
    fed.take()
    assert fed.block(13, way=Way.REPLAY) is Verdict.LATE
    assert fed.heights.take_linked() == [13]
    assert fed.block(14, way=Way.API) is Verdict.LATE
    assert fed.heights.take_linked() == [14, 15]
    (resolved,) = fed.take()
    assert (resolved.status, resolved.how, resolved.count) == (Status.RESOLVED, Way.API, 0)
    fed.wait(100)
    assert fed.take() == []


def test_updates_of_a_gap_are_told_seldom(fed: FedHeights) -> None:
    fed.live(30)
    fed.wait(AFTER_GRACE)
    fed.take()
    for height in range(13, 25):
        fed.block(height, way=Way.REPLAY)
        fed.wait(1)
    updates = fed.take()
    assert {each.status for each in updates} == {Status.UPDATED}
    assert {each.how for each in updates} == {Way.REPLAY}
    assert len(updates) == 2
    fed.wait(100)
    assert said(fed) == [("updated", 5, 0)]


def test_what_backfill_asks_is_told_once_and_counted(fed: FedHeights) -> None:
    fed.live(30, 40)
    fed.wait(AFTER_GRACE)
    fed.take()
    fed.note(Asked(13, 20, Way.REPLAY))
    assert said(fed) == [("backfilling", 17, 1)]
    fed.note(Asked(13, 35, Way.REPLAY))
    assert said(fed) == [("backfilling", 9, 1)]
    fed.wait(10)
    assert said(fed) == [("updated", 17, 2)]


def test_what_was_told_meanwhile_is_not_told_again(fed: FedHeights) -> None:
    fed.live(20)
    fed.wait(AFTER_GRACE)
    fed.take()
    fed.block(15)
    fed.note(Asked(13, 19, Way.REPLAY))
    assert said(fed) == [("backfilling", 6, 1)]
    fed.wait(100)
    assert fed.take() == []


def test_what_cannot_be_had_is_told_once_and_again_after_more_came(fed: FedHeights) -> None:
    fed.live(20)
    fed.wait(AFTER_GRACE)
    fed.take()
    for _ in range(3):
        fed.note(Asked(13, 19, Way.API))
        fed.note(Unobtainable(13, 19, "no node has them"))
        fed.wait(10)
    first, second = fed.take()
    assert (first.status, second.status) == (Status.BACKFILLING, Status.UNRESOLVED)
    assert second.why == "no node has them"
    fed.block(15)
    fed.wait(10)
    fed.note(Unobtainable(13, 19, "no node has the rest"))
    assert said(fed) == [("updated", 6, 3), ("unresolved", 6, 3)]
    fed.blocks([13, 14, 16, 17, 18, 19])
    assert said(fed) == [("resolved", 0, 3)]


def test_notes_say_nothing_of_a_gap_in_its_grace(fed: FedHeights) -> None:
    fed.live(20)
    fed.note(Asked(0, 100, Way.API))
    fed.note(Unobtainable(0, 100, "no"))
    assert fed.take() == []


def test_what_is_sought_is_missing_at_once(fed: FedHeights) -> None:
    fed.blocks([4, 5], way=Way.REPLAY)
    fed.live(20)
    fed.note(Sought(2, 30))
    told = fed.take()
    assert [each.missing for each in told] == [((2, 3),), ((6, 9),), ((21, 30),)]
    assert {each.cause for each in told} == {Cause.UNKNOWN}
    # The gap that was in its grace stays so.
    assert fed.missing() == [2, 3, *range(6, 10), *range(13, 20), *range(21, 31)]
    fed.note(Sought(2, 30))
    assert fed.take() == []


def test_an_empty_tracker_takes_what_is_sought() -> None:
    fed = FedHeights()
    fed.note(Sought(0, 5))
    assert said(fed) == [("opened", 6, 0)]
    fed.blocks(range(6), way=Way.REPLAY)
    assert (fed.missing(), fed.heights.floor, fed.heights.highest) == ([], 0, 5)
    assert said(fed)[-1] == ("resolved", 0, 0)


# Causes


def cause(fed: FedHeights) -> Cause:
    fed.wait(AFTER_GRACE)
    (opened,) = fed.take()
    return opened.cause


def test_a_node_that_told_nothing_of_the_heights_was_silent(fed: FedHeights) -> None:
    fed.live(20)
    assert cause(fed) is Cause.SILENT


def test_a_node_that_told_minutes_and_no_blocks_was_not_synced(fed: FedHeights) -> None:
    fed.told(14)
    fed.told(20)
    fed.live(20)
    assert cause(fed) is Cause.NOT_SYNCED


def test_a_restart_is_the_cause_until_a_block_came_after_it(fed: FedHeights) -> None:
    fed.restart(600)
    fed.live(15)
    assert cause(fed) is Cause.RESTART
    fed.live(20)
    assert cause(fed) is Cause.SILENT


def test_a_full_journal_is_the_cause_until_a_block_came_after_it(fed: FedHeights) -> None:
    fed.heights.storage(fed.now)
    fed.live(15)
    assert cause(fed) is Cause.STORAGE
    fed.live(20)
    assert cause(fed) is Cause.SILENT


@pytest.mark.parametrize("expected", [Cause.STORAGE, Cause.RESTART])
def test_an_older_block_that_comes_late_does_not_take_the_cause_away(
    fed: FedHeights, expected: Cause
) -> None:
    fed.live(15)
    fed.take()
    if expected is Cause.STORAGE:
        fed.heights.storage(fed.now)
    else:
        fed.restart(600)
    fed.blocks((13, 14), way=Way.REPLAY)
    fed.live(20)
    assert cause(fed) is expected


def test_a_block_that_does_not_link_leaves_its_height_missing(fed: FedHeights) -> None:
    assert fed.block(13, chain=OTHER) is Verdict.UNLINKED
    assert (fed.heights.highest, fed.missing()) == (12, [13])
    assert cause(fed) is Cause.UNLINKED
    assert (fed.block(13), fed.heights.take_linked()) == (Verdict.LATE, [13])
    assert said(fed) == [("resolved", 0, 0)]


def test_a_gap_takes_the_cause_of_a_block_that_does_not_link(fed: FedHeights) -> None:
    fed.live(15)
    fed.wait(AFTER_GRACE)
    fed.take()
    assert fed.block(14, chain=OTHER) is Verdict.UNLINKED
    fed.wait(10)
    (updated,) = fed.take()
    assert (updated.status, updated.cause) == (Status.UPDATED, Cause.UNLINKED)


def test_a_block_that_names_another_full_hash_does_not_link(fed: FedHeights) -> None:
    made = MadeChain().block(13)._replace(previous_full_hash=b"f" * 32)
    assert fed.made(made) is Verdict.UNLINKED


# The tail


def test_what_the_node_has_above_the_highest_block_is_a_gap_after_the_grace(
    fed: FedHeights,
) -> None:
    fed.note(Tip(14))
    fed.wait(AFTER_GRACE)
    (opened,) = fed.take()
    assert (opened.id, opened.missing, opened.after) == ("13-14", ((13, 14),), None)
    fed.note(Tip(17))
    fed.wait(BOUNDS.update_every)
    (updated,) = fed.take()
    assert (updated.id, updated.status, updated.last) == ("13-14", Status.UPDATED, 17)
    fed.live(20)
    fed.wait(10)
    (updated,) = fed.take()
    assert (updated.last, updated.count, updated.after) == (19, 7, 20)
    fed.blocks(range(13, 20))
    assert said(fed)[-1] == ("resolved", 0, 0)


def test_a_node_that_is_one_block_ahead_for_a_moment_is_no_gap(fed: FedHeights) -> None:
    for height in range(13, 40):
        fed.note(Tip(height))
        fed.wait(2)
        fed.live(height)
        fed.wait(60)
    assert (fed.take(), fed.missing()) == ([], [])


def test_a_tip_far_above_is_one_alert_and_no_gap(fed: FedHeights) -> None:
    fed.note(Tip(13 + MAX_JUMP))
    fed.note(Tip(14 + MAX_JUMP))
    assert troubles(fed.take()) == [("jump", "unresolved", 13 + MAX_JUMP)]
    assert fed.missing() == []
    fed.note(Tip(12 + MAX_JUMP))
    assert fed.heights.gaps[0].missing == MAX_JUMP


# Doubt


def test_a_block_far_ahead_waits_until_a_minute_speaks_for_it(fed: FedHeights) -> None:
    assert fed.block(20) is Verdict.DOUBTED
    assert fed.heights.links_below(21) == MadeChain().block(20).links
    assert (fed.heights.highest, fed.missing()) == (12, [])
    fed.told(21)
    assert (fed.heights.highest, fed.missing()) == (20, list(range(13, 20)))


@pytest.mark.parametrize(
    "speak",
    [
        lambda fed: fed.note(Tip(20)),
        lambda fed: fed.block(21),
        lambda fed: fed.block(19),
        lambda fed: fed.wait(BOUNDS.doubt),
    ],
    ids=["tip", "block above", "block below", "time"],
)
def test_other_things_speak_for_a_block_too(
    fed: FedHeights, speak: Callable[[FedHeights], object]
) -> None:
    assert fed.block(20) is Verdict.DOUBTED
    speak(fed)
    assert fed.block(20) is Verdict.REPEATED


@pytest.mark.parametrize(
    "speak",
    [
        lambda fed: fed.told(1),
        lambda fed: fed.note(Tip(0)),
        lambda fed: fed.wait(BOUNDS.doubt),
        lambda fed: fed.block(1),
    ],
    ids=["minute", "tip", "time", "block above"],
)
def test_whatever_ends_a_doubt_proves_links(speak: Callable[[FedHeights], object]) -> None:
    fed = FedHeights()
    assert fed.block(0) is Verdict.DOUBTED
    speak(fed)
    fed.block(1)
    assert fed.heights.take_linked() == [0, 1]


def test_a_block_for_whose_height_a_minute_was_told_is_believed_at_once(fed: FedHeights) -> None:
    fed.told(20)
    assert fed.block(20) is Verdict.NEW


def test_a_forged_block_does_not_become_true_when_the_chain_comes_near(fed: FedHeights) -> None:
    fed.block(16, chain=OTHER)
    fed.live(13, 14, 15, 16)
    assert (fed.heights.highest, fed.missing()) == (16, [])
    assert fed.block(16) is Verdict.REPEATED
    fed.wait(200)
    assert [each for each in fed.take() if each.trouble is not Trouble.STALLED] == []


@pytest.mark.parametrize(
    "refute",
    [
        lambda fed: fed.note(Tip(13)),
        lambda fed: (fed.live(13), fed.wait(BOUNDS.doubt)),
    ],
    ids=["tip", "the chain goes on"],
)
def test_a_doubted_block_is_forgotten_with_one_alert(
    fed: FedHeights, refute: Callable[[FedHeights], object]
) -> None:
    fed.block(500, chain=OTHER)
    fed.block(700, chain=OTHER)
    refute(fed)
    assert troubles(fed.take()) == [("jump", "unresolved", 500)]
    fed.told(501)
    assert (fed.heights.highest or 0) < 14


def test_a_forged_first_block_does_not_hide_the_true_chain() -> None:
    fed = FedHeights()
    assert fed.block(4_000_000_000, chain=OTHER) is Verdict.DOUBTED
    fed.told(10)
    fed.live(10, 12)
    assert (fed.heights.floor, fed.heights.highest, fed.missing()) == (10, 12, [11])
    fed.wait(BOUNDS.doubt)
    assert (fed.heights.floor, fed.heights.highest) == (10, 12)


def test_of_two_doubted_blocks_that_contradict_the_first_is_believed_in_the_end(
    fed: FedHeights,
) -> None:
    fed.block(5)
    fed.block(5, chain=OTHER)
    fed.block(6, chain=MadeChain("third"))
    fed.wait(BOUNDS.doubt + 1)
    assert list(fed.heights._chain.present) == [(5, 5), (10, 12)]
    assert fed.block(5) is Verdict.REPEATED
    assert fed.heights.dropped == 2


def test_blocks_that_link_speak_for_each_other() -> None:
    fed = FedHeights()
    assert fed.block(0, way=Way.REPLAY) is Verdict.DOUBTED
    assert fed.block(1, way=Way.REPLAY) is Verdict.NEW
    assert fed.block(2, way=Way.REPLAY) is Verdict.NEW
    assert fed.heights.take_linked() == [0, 1, 2]
    assert (fed.heights.floor, fed.heights.highest) == (0, 2)


def test_a_height_too_far_ahead_is_one_alert_whatever_the_minutes_say(fed: FedHeights) -> None:
    for height in (2**32 - 2, 2**32 - 1):
        fed.told(height)
        assert fed.block(height) is Verdict.DOUBTED
    assert troubles(fed.take()) == [("jump", "unresolved", 2**32 - 2)]
    assert (fed.heights.highest, fed.missing()) == (12, [])
    fed.live(13, 14, 15)
    fed.block(2**32 - 1)
    assert troubles(fed.take()) == [("jump", "unresolved", 2**32 - 1)]


def test_the_longest_jump_believed_is_one_range(fed: FedHeights) -> None:
    fed.told(12 + MAX_JUMP)
    fed.block(12 + MAX_JUMP)
    fed.wait(AFTER_GRACE)
    assert ranges(fed) == [(13, 11 + MAX_JUMP)]


def test_doubted_blocks_are_bounded_and_counted(fed: FedHeights) -> None:
    for number in range(doubts.MOST_DOUBTS + 6):
        fed.block(100 + 3 * number, chain=OTHER)
    assert fed.heights.dropped == 6


# Blocks that are not what they seem


@pytest.mark.parametrize("wrong", ["key-merkle-root", "admin-block", "entry"])
def test_a_block_whose_hashes_do_not_hold_counts_as_not_come(fed: FedHeights, wrong: str) -> None:
    for _ in range(2):
        assert fed.block(13, wrong=wrong) is Verdict.UNVERIFIED
    assert (fed.heights.highest, fed.heights.key_above(12)) == (12, None)
    assert troubles(fed.take()) == [("unverified", "opened", 13)]
    fed.live(13)
    assert troubles(fed.take()) == [("unverified", "resolved", 13)]


def test_unverified_blocks_are_bounded_and_counted(fed: FedHeights) -> None:
    for height in range(100, 200):
        fed.block(height, wrong="key-merkle-root")
    assert fed.heights.dropped == 36
    fed.take()
    assert max(map(len, fed.items.values())) < 20_000


def test_a_block_of_another_network_counts_as_not_come(fed: FedHeights) -> None:
    foreign = MadeChain("foreign", network=7)
    for height in (13, 14):
        assert fed.block(height, chain=foreign) is Verdict.OTHER_NETWORK
    assert troubles(fed.take()) == [("network", "opened", 13)]
    fed.live(13, 14)
    fed.block(15, chain=foreign)
    fed.live(15, 16)
    assert fed.take() == []
    fed.live(17)
    assert troubles(fed.take()) == [("network", "resolved", 13)]


def test_another_key_for_a_height_that_is_there_is_told_once_for_the_whole_chain() -> None:
    fed = FedHeights()
    fed.told(10)
    fed.live(10, 11, 12, 13, 14, 15)
    assert fed.block(13, chain=FORK) is Verdict.OTHER_CHAIN
    assert fed.block(14, chain=FORK) is Verdict.OTHER_CHAIN
    assert fed.block(14, chain=FORK) is Verdict.OTHER_CHAIN
    assert fed.block(15, chain=FORK) is Verdict.OTHER_CHAIN
    assert troubles(fed.take()) == [("regression", "opened", 13)]
    fed.live(16)
    # Its count begins anew, because ours went on.
    for height in (16, 17):
        assert fed.block(height, chain=FORK) is Verdict.OTHER_CHAIN
    assert (fed.heights.highest, fed.block(15)) == (16, Verdict.REPEATED)
    fed.live(17, 18, 19)
    assert troubles(fed.take()) == [("regression", "resolved", 13)]


def test_a_chain_that_goes_on_while_ours_does_not_is_adopted(fed: FedHeights) -> None:
    fed.live(20)
    fed.wait(AFTER_GRACE)
    fed.take()
    verdicts = [fed.block(height, chain=OTHER) for height in (10, 11, 12, 13)]
    assert verdicts == [Verdict.OTHER_CHAIN] * 3 + [Verdict.ADOPTED]
    assert (fed.heights.floor, fed.heights.highest, fed.missing()) == (10, 13, [])
    regression, gap, over = sorted(fed.take(), key=lambda each: each.trouble is Trouble.GAP)[:3]
    told = {(each.trouble, each.status, each.count) for each in (regression, gap, over)}
    assert told == {
        (Trouble.REGRESSION, Status.OPENED, 0),
        (Trouble.REGRESSION, Status.RESOLVED, 0),
        (Trouble.GAP, Status.UNRESOLVED, 0),
    }
    fed.chain = OTHER
    fed.told(14)
    fed.live(14, 20)
    fed.wait(AFTER_GRACE)
    (opened,) = fed.take()
    # The same heights as before, and another gap.
    assert (opened.id, opened.missing) == ("15-19-1", ((15, 19),))
    fed.restart()
    assert (fed.heights.floor, fed.heights.highest) == (10, 20)
    assert fed.block(12, chain=MadeChain()) is Verdict.OTHER_CHAIN


def test_a_chain_that_starts_again_from_nothing_is_adopted() -> None:
    fed = FedHeights()
    fed.told(0)
    fed.live(0, 1, 2, 3, 4, 5, 6, 7)
    again = MadeChain("again")
    judged = [fed.block(height, chain=again) for height in range(4)]
    assert (judged[-1], fed.heights.take_linked()) == (Verdict.ADOPTED, [0, 1, 2, 3])
    assert (fed.block(4, chain=again), fed.heights.take_linked()) == (Verdict.NEW, [4])


# Several nodes


def test_a_height_is_missing_only_if_no_node_brought_it(fed: FedHeights) -> None:
    for first, second in [(13, 14), (15, 13), (16, 15), (14, 16)]:
        fed.block(first)
        fed.told(first + 1)
        fed.block(second)
    fed.wait(AFTER_GRACE)
    assert (fed.take(), fed.missing(), fed.heights.highest) == ([], [], 16)


# Stalls


def test_a_node_that_never_said_anything_is_stalled_after_the_longest_time() -> None:
    fed = FedHeights()
    fed.wait(BOUNDS.longest_stall - 1, step=100)
    assert fed.take() == []
    fed.wait(2)
    (stalled,) = fed.take()
    assert (stalled.trouble, stalled.status) == (Trouble.STALLED, Status.OPENED)
    assert stalled.cause is Cause.SILENT
    fed.wait(10_000, step=100)
    assert fed.take() == []
    fed.told(10)
    assert troubles(fed.take()) == [("stalled", "resolved", 0)]


def test_a_stall_is_over_only_when_something_comes_also_over_a_restart(fed: FedHeights) -> None:
    fed.wait(BOUNDS.longest_stall + 1, step=100)
    assert troubles(fed.take()) == [("stalled", "opened", 12)]
    fed.restart(100)
    fed.wait(100)
    assert fed.take() == []
    fed.live(13)
    assert troubles(fed.take()) == [("stalled", "resolved", 12)]


# State


def test_more_gaps_than_the_most_widen_the_highest_one() -> None:
    fed = FedHeights()
    fed.told(0)
    for height in range(0, 3 * (gaps.MOST_GAPS + 5), 3):
        fed.live(height)
    assert len(fed.heights.gaps) == gaps.MOST_GAPS
    assert fed.heights.gaps[-1].missing == 2 * 5
    fed.wait(AFTER_GRACE)
    assert fed.heights.missing == 2 * (gaps.MOST_GAPS + 4)
    fed.take()
    fed.restart()
    assert fed.heights.gaps[-1].missing == 2 * 5


def test_the_state_comes_back_from_its_items() -> None:
    fed = FedHeights()
    fed.told(10)
    fed.live(10, 11, 15, 16, 20)
    fed.block(40)
    fed.wait(AFTER_GRACE)
    fed.note(Asked(12, 14, Way.REPLAY))
    fed.take()
    before = [(gap.id, gap.status, gap.attempts, gap.opened_ns) for gap in fed.heights.gaps]
    fed.restart()
    heights = fed.heights
    assert [(g.id, g.status, g.attempts, g.opened_ns) for g in heights.gaps] == before
    assert (heights.floor, heights.highest, heights.missing) == (10, 20, 6)
    assert heights.links_below(12) == MadeChain().block(11).links
    assert heights.links_below(41) == MadeChain().block(40).links
    fed.wait(100)
    assert fed.take() == []
    fed.note(Asked(12, 14, Way.REPLAY))
    fed.wait(10)
    assert said(fed) == [("updated", 3, 2)]


def test_items_of_others_are_passed_over() -> None:
    fed = FedHeights(items={"receipt/1": b"x", "seen/2": b"y"})
    fed.told(1)
    fed.live(1)
    assert fed.heights.highest == 1


def test_a_block_writes_few_rows_however_long_the_chain() -> None:
    fed = FedHeights()
    fed.told(0)
    fed.live(*range(1_000))
    fed.take()
    fed.block(1_000)
    _, changed = fed.heights.take()
    assert sorted(changed) == [
        "heights/key/000003",
        "heights/upper/000003e7",
        "heights/upper/000003e8",
    ]


# Recorded feeds


def play(capture: Capture) -> FedHeights:
    """Feed the blocks and minutes of a recording, all at once, and wait."""
    fed = FedHeights()
    for payload in capture.payloads():
        try:
            event = decode(payload)
        except DecodeError:
            continue
        if event is None:
            continue
        if event.kind is Kind.DIRECTORY_BLOCK_COMMIT:
            header = event.member.directoryBlock.header
            verified = verify(event.member, fed.heights.links_below(header.blockHeight))
            fed.heights.block(
                header.blockHeight,
                verified,
                header.previousKeyMerkleRoot,
                Way.REPLAY if event.source == 1 else Way.LIVE,
                fed.now,
                fed.at_ns,
            )
        elif event.kind is Kind.PROCESS_LIST_EVENT:
            told = event.member
            fed.told(told.newBlockEvent.newBlockHeight or told.newMinuteEvent.blockHeight)
    return fed


GAPS = {"gap-api": (4, 26), "gap-api-replay": (31, 31), "gap-long": (4, 25)}


@pytest.mark.parametrize("name", CAPTURES)
def test_recorded_feeds_give_the_gaps_that_they_are_known_to_have(name: str) -> None:
    capture = find_capture(name)
    if capture is None:
        not_here(name)
    fed = play(capture)
    fed.wait(AFTER_GRACE)
    alerts = fed.alerts()
    if name.startswith("allfields"):
        assert {alert.type for alert in alerts} == {GapAlert.TYPE_UNVERIFIED}
        assert fed.heights.highest is None
        return
    expected = [GAPS[name]] if name in GAPS else []
    assert ranges(fed) == expected
    assert [(alert.first_height, alert.last_height) for alert in alerts] == expected
    assert {alert.cause for alert in alerts} <= {GapAlert.CAUSE_NODE_SILENT}


def test_the_replay_of_a_recorded_gap_comes_late_after_the_grace() -> None:
    capture = find_capture("gap-api-replay")
    if capture is None:
        not_here("gap-api-replay")
    fed = FedHeights()
    blocks = [
        event.member
        for event in map(decode, capture.payloads())
        if event is not None and event.kind is Kind.DIRECTORY_BLOCK_COMMIT
    ]
    for number, block in enumerate(blocks):
        header = block.directoryBlock.header
        fed.told(max(header.blockHeight, 1))
        if number == 8:  # the live blocks 1 to 3 and 32 to 36 came, and the replay begins
            fed.wait(AFTER_GRACE)
            assert [(each.id, each.status) for each in fed.take()] == [("4-31", Status.OPENED)]
        verified = verify(block, fed.heights.links_below(header.blockHeight))
        way = Way.REPLAY if number >= 8 else Way.LIVE
        fed.heights.block(
            header.blockHeight, verified, header.previousKeyMerkleRoot, way, fed.now, fed.at_ns
        )
    fed.wait(10)
    (updated,) = fed.take()
    assert (updated.id, updated.status, updated.how) == ("4-31", Status.UPDATED, Way.REPLAY)
    assert (updated.missing, updated.first, updated.last) == (((31, 31),), 4, 31)
