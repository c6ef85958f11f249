"""`core.ways`: chains or atomic batches."""

from __future__ import annotations

from bridge.core.ways import Ways


def _tried(chain: float, atomic: float) -> Ways:
    ways = Ways(has_atomic=True)
    ways.tried(chain, atomic)
    return ways


def test_a_chain_goes_where_it_is_faster_or_nearly_as_fast() -> None:
    assert _tried(chain=12e-6, atomic=25e-6).is_chain(900)
    assert _tried(chain=40e-6, atomic=25e-6).is_chain(900)


def test_atomic_batches_go_where_a_chain_is_clearly_slower_but_not_for_a_few() -> None:
    ways = _tried(chain=300e-6, atomic=25e-6)
    assert not ways.is_chain(900)
    assert not ways.is_chain(9)
    assert ways.is_chain(8)


def test_before_it_is_tried_a_chain_is_taken_for_slow() -> None:
    assert not Ways(has_atomic=True).is_chain(50)


def test_an_older_server_has_nothing_but_chains_and_nothing_to_try() -> None:
    ways = Ways(has_atomic=False)
    assert ways.is_chain(900)
    assert ways.trial(900) == 0


def test_where_chains_do_harm_there_is_nothing_to_try() -> None:
    ways = Ways(has_atomic=True, has_chains=False)
    assert not ways.is_chain(900)
    assert not ways.is_chain(3)
    assert ways.trial(900) == 0


def test_it_is_tried_at_first_and_again_later_each_time() -> None:
    ways = Ways(has_atomic=True)
    for lists in (100, 200, 400, 800, 1_600, 1_600):
        assert ways.trial(900) == 450
        ways.tried(1, 1)
        for _ in range(lists):
            assert ways.trial(900) == 0
            ways.sent()


def test_of_many_messages_some_are_tried_of_few_the_half_and_of_too_few_none() -> None:
    ways = Ways(has_atomic=True)
    assert ways.trial(5_000) == 512
    assert ways.trial(64) == 32
    assert ways.trial(63) == 0
