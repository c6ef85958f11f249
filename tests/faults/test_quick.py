"""A little of each fault, with the other tests. `make faults` runs the whole and prints figures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.campaign import FAULTS, Fault
from tests.faults.ground import Ground

pytestmark = pytest.mark.brokers

_SEED = 1
_QUICK = [fault for fault in FAULTS if fault.quick]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with Ground(tmp_path_factory.mktemp("faults")) as made:
        yield made


@pytest.mark.parametrize("fault", _QUICK, ids=lambda fault: fault.name)
async def test_nothing_accepted_is_lost_twice_or_out_of_order(fault: Fault, ground: Ground) -> None:
    tally = await fault.run(ground, fault.quick, _SEED)
    if tally.not_tried:
        pytest.skip(tally.not_tried)
    assert tally.tries
    assert tally.is_clean, tally
