"""Intervals of medians and means: by hand, and by how often they hold."""

import random
from math import comb

import pytest

from parallel.measurement.intervals import difference_of_means, mean_interval, median_interval


def test_median_interval_by_hand() -> None:
    """Six values: least and greatest enclose the median with 1 - 2/64; five reach 1 - 2/32."""
    six = median_interval([5, 1, 4, 2, 6, 3])
    assert (six.median, six.low, six.high) == (3.5, 1, 6)
    assert six.confidence == pytest.approx(1 - 2 / 64)
    assert median_interval([1, 2, 3, 4, 5]).confidence == pytest.approx(1 - 2 / 32)
    assert median_interval([7.0]).confidence == 0
    # Eleven: the second smallest and greatest reach 1 - 2 (1 + 11) / 2048.
    eleven = median_interval(range(11))
    assert (eleven.low, eleven.high) == (1, 9)
    assert eleven.confidence == pytest.approx(1 - 2 * 12 / 2048)
    assert eleven.to_json().keys() == {"median", "low", "high", "repeats", "confidence"}


def test_median_interval_covers_as_often_as_it_says() -> None:
    rng = random.Random(2)
    n, trials = 11, 2000
    hits = 0
    for _ in range(trials):
        interval = median_interval([rng.expovariate(1) for _ in range(n)])
        hits += interval.low <= 0.6931 <= interval.high
    expected = 1 - 2 * sum(comb(n, k) for k in range(2)) / 2**n
    assert hits / trials == pytest.approx(expected, abs=0.015)


def test_no_repeats_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        median_interval([])


def test_interval_by_hand() -> None:
    """4.0, 4.2, 4.4: mean 4.2, s = 0.2, t(2) = 4.303: half-width 4.303 * 0.2 / sqrt(3)."""
    interval = mean_interval([4.0, 4.2, 4.4])
    assert interval.mean == pytest.approx(4.2)
    assert interval.half_width == pytest.approx(0.4969, abs=1e-4)
    assert mean_interval([4.0]).half_width is None


def test_welch_interval_by_hand() -> None:
    """Equal variances 0.04 and sizes 3: standard error 0.1633, 4 degrees of freedom, t 2.776."""
    gap = difference_of_means([1.0, 1.2, 1.4], [2.0, 2.2, 2.4])
    assert gap.mean == pytest.approx(-1.0)
    assert gap.half_width == pytest.approx(2.776 * 0.16330, rel=1e-3)
    assert difference_of_means([1.0], [2.0, 2.1]).half_width is None
