"""Intervals of repeated measurements: of a median, a mean, a difference of means."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import comb
from statistics import fmean, median, stdev

CONFIDENCE = 0.95
# Two-sided 95% quantiles of Student's t for 1 to 30 degrees of freedom; beyond: the normal's.
_T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179,
         2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064,
         2.060, 2.056, 2.052, 2.048, 2.045, 2.042)  # fmt: skip
_NORMAL_95 = 1.960


@dataclass(frozen=True)
class MedianInterval:
    """A median of repeats with an interval that covers the true median in 95% of cases."""

    median: float
    low: float
    high: float
    repeats: int
    confidence: float
    """Coverage of `low` to `high`: less than 0.95 where there are fewer than six repeats."""

    def to_json(self) -> dict[str, float]:
        """Return JSON values, one key for each field."""
        return asdict(self)


def median_interval(values: Sequence[float]) -> MedianInterval:
    """Return the median and its distribution-free interval between two order statistics.

    The k-th smallest and k-th largest of n enclose the median with probability
    1 - 2 P(Binomial(n, 1/2) < k) (W. R. Thompson, Ann. Math. Statist. 7, 1936).

    Raises:
        ValueError: No values.
    """
    ordered, n = sorted(values), len(values)
    if not n:
        raise ValueError("no repeats: a benchmark needs at least one")
    # Choose the innermost pair that still reaches 95%; the outermost where none does.
    rank, tail = 1, 0.5**n
    while rank < n // 2 and 1 - 2 * (tail + comb(n, rank) * 0.5**n) >= CONFIDENCE:
        tail += comb(n, rank) * 0.5**n
        rank += 1
    confidence = max(0.0, 1 - 2 * tail)
    return MedianInterval(median(ordered), ordered[rank - 1], ordered[n - rank], n, confidence)


@dataclass(frozen=True)
class MeanInterval:
    """A mean, or a difference of means, with its 95% confidence interval."""

    mean: float
    half_width: float | None
    """`None` for a single value, which has no spread."""
    num_values: int


def mean_interval(values: Sequence[float]) -> MeanInterval:
    """Return the mean and its 95% confidence interval (Student's t).

    Raises:
        ValueError: No values.
    """
    if not values:
        raise ValueError("no values: a mean needs at least one")
    if len(values) < 2:
        return MeanInterval(values[0], None, 1)
    half = t_quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return MeanInterval(fmean(values), half, len(values))


def t_quantile(degrees: float) -> float:
    """Return the two-sided 95% quantile of Student's t.

    Degrees of freedom are rounded down: an interval is never too narrow.
    """
    rounded = max(1, math.floor(degrees))
    return _T_95[rounded - 1] if rounded <= len(_T_95) else _NORMAL_95


def difference_of_means(first: Sequence[float], second: Sequence[float]) -> MeanInterval:
    """Return `mean(first) - mean(second)` with Welch's interval; none if either has one value.

    B. L. Welch, Biometrika 34 (1947): degrees of freedom by Welch-Satterthwaite.
    """
    gap = fmean(first) - fmean(second)
    smaller = min(len(first), len(second))
    if smaller < 2:
        return MeanInterval(gap, None, smaller)
    a, b = (stdev(part) ** 2 / len(part) for part in (first, second))
    if a + b == 0:
        return MeanInterval(gap, 0.0, smaller)
    degrees = (a + b) ** 2 / (a**2 / (len(first) - 1) + b**2 / (len(second) - 1))
    return MeanInterval(gap, t_quantile(degrees) * math.sqrt(a + b), smaller)
