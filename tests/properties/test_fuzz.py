"""The fuzz targets, for a moment: `make fuzz` runs them for as long as one likes."""

import random
from itertools import islice

import pytest
from hypothesis import given, strategies as st

from tests.fuzz.engine import mutated
from tests.fuzz.targets import TARGETS, Target

each_target = pytest.mark.parametrize("target", TARGETS, ids=[each.name for each in TARGETS])


@each_target
def test_recordings_mutated_give_none_but_the_promised_errors(target: Target) -> None:
    seeds = list(target.seeds())
    assert seeds
    for seed in seeds[:200]:
        target.run(seed)
    for data in islice(mutated(seeds, random.Random(7)), 500):
        target.run(data)


@each_target
@given(data=st.binary(max_size=200))
def test_noise_gives_none_but_the_promised_errors(target: Target, data: bytes) -> None:
    target.run(data)
