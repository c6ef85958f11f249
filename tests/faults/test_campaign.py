"""The suite can tell: what is lost, twice, out of order or changed is counted as that."""

from __future__ import annotations

import hashlib

import pytest

from tests.faults.campaign import FAULTS, table
from tests.faults.tally import Tally, in_stream, in_topics
from tests.support.consumers import Read
from tests.support.journal_file import Stored


def _read(number: int, data: bytes | None = None) -> Read:
    intact = b"event %d" % number
    id_ = hashlib.sha256(b"entry-commit\0" + intact).hexdigest()[:32]
    headers = {
        "ce-id": id_,
        "ce-type": "com.factom.livefeed.entry-commit.v1",
        "bridge-seq": str(number),
    }
    return Read("factom.entry-commit", 0, number, None, headers, data or intact)


_HELD = [_read(number) for number in range(1, 6)]
_ACCEPTED = [Stored(each.seq, True, "entry-commit", each.id) for each in _HELD]


def _figures(tally: Tally) -> tuple[int, ...]:
    return tally.lost, tally.reordered, tally.duplicates, tally.repeats, tally.wrong


@pytest.mark.parametrize(
    ("held", "figures"),
    [
        (_HELD, (0, 0, 0, 0, 0)),
        (_HELD[:-1], (1, 0, 0, 0, 0)),
        ([*_HELD[:2], _HELD[3], _HELD[2], _HELD[4]], (0, 1, 0, 0, 0)),
        ([*_HELD, _HELD[1]], (0, 0, 1, 0, 0)),
        ([*_HELD[:4], _read(5, b"another")], (0, 0, 0, 0, 1)),
        ([*_HELD, _read(6)], (0, 0, 0, 0, 1)),
    ],
    ids=["whole", "one lost", "two out of order", "one twice", "other data", "never accepted"],
)
def test_a_stream_is_compared_with_what_was_accepted(
    held: list[Read], figures: tuple[int, ...]
) -> None:
    assert _figures(in_stream(_ACCEPTED, held)) == figures


def test_a_batch_twice_in_a_topic_is_a_repeat_and_one_rewind() -> None:
    tally = in_topics(_ACCEPTED, {"entry-commit": [*_HELD[:4], *_HELD[1:]]})
    assert _figures(tally) == (0, 0, 0, 3, 0)
    assert tally.rewinds == 1
    assert tally.is_clean


def test_a_topic_that_is_not_there_has_lost_all_of_its_kind() -> None:
    assert in_topics(_ACCEPTED, {}).lost == len(_ACCEPTED)


def test_what_is_broken_is_told_beneath_the_table() -> None:
    text = table([(FAULTS[0], Tally(tries=7, broken=["ended with 70"]), 3.0)])
    assert "BROKEN" in text.splitlines()[1]
    assert text.splitlines()[2] == f"{FAULTS[0].name}: ended with 70"


def test_what_could_not_be_tried_is_told_loudly() -> None:
    text = table([(FAULTS[0], Tally(not_tried="there is no strace"), 0.0)])
    assert "NOT TRIED" in text.splitlines()[1]
    assert text.splitlines()[2] == f"{FAULTS[0].name}: NOT TRIED, there is no strace"
