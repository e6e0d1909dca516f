"""Intervals of what is asked beyond the points hold the truth about as often as they say."""

import pytest

from tests.support.interval_coverage import coverage


@pytest.mark.parametrize("name", ["chinchilla", "abnar"])
def test_intervals_beyond_the_points_hold_the_truth(name: str) -> None:
    """95% intervals in 6 draws: at most one miss of each is due."""
    found = coverage(name, 6, resamples=40)
    assert len(found) == 5
    assert min(found.values()) >= 4, found
    assert sum(found.values()) >= 25, found
