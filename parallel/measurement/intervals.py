"""What repeated measurements say: a median, and the interval that encloses the true one."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import comb
from statistics import median

CONFIDENCE = 0.95


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
