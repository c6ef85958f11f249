"""The soak can tell: what is lost in a sink, and memory that grows."""

from __future__ import annotations

import pytest

from tests.faults.soak import Sample, lost, slope

_ALL = set(range(7))


@pytest.mark.parametrize(
    ("left_out", "streamed", "written", "expected"),
    [
        ({"kafka": 3, "nats": 3}, _ALL, _ALL, 0),
        ({"kafka": 3, "nats": 2}, _ALL, _ALL, 0),
        ({"kafka": 3, "nats": 3}, _ALL - {4}, _ALL, 1),
        ({"kafka": 3, "nats": 3}, _ALL, _ALL - {4}, 1),
        ({"kafka": 3, "nats": 3}, _ALL - {4}, _ALL - {4}, 1),
        ({}, _ALL, _ALL, 3),
    ],
)
def test_what_lacks_in_one_sink_or_both_is_lost(
    left_out: dict[str, float], streamed: set[int], written: set[int], expected: int
) -> None:
    assert lost(10, left_out, streamed, written) == expected


def test_memory_that_grows_is_seen_behind_its_ups_and_downs() -> None:
    def sample(at: float, rss_mb: float) -> Sample:
        return Sample(at, rss_mb, rss_mb, 30, 8, 22, 100.0, 0, 0, quiet=True)

    level = [sample(at * 10, 150 + at % 6) for at in range(360)]
    grows = [each._replace(rss_mb=each.rss_mb + each.at / 3600 * 2) for each in level]
    assert abs(slope(level)) < 0.01
    assert slope(grows) == pytest.approx(2, abs=0.1)
