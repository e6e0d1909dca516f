"""When two sizes count as equal: one rule for the report's sentence and its tables."""

from collections.abc import Sequence
from statistics import fmean

# Loss falls about as N^-0.076 (arXiv:2001.08361): 5% in size moves it by 0.4%, 0.015 nats at a
# loss of 4, which is what seeds differ by. At 10% size alone would show.
EQUAL_WITHIN = 0.05


def relative_gap(a: float, b: float) -> float:
    """Return the difference of two sizes as a fraction of the larger one, from 0 to 1."""
    return abs(a - b) / max(a, b, 1)


def count_as_equal(a: float, b: float) -> bool:
    """Return whether two sizes (parameters, tokens) are close enough to be called equal."""
    return relative_gap(a, b) <= EQUAL_WITHIN


# What seeds differ by, nats/token at a loss of 4; and what one measurement of speed or energy
# leaves open. Counts are exact.
SEEDS_DIFFER_NATS = 0.015
_MEASURED = frozenset({"tokens_per_s", "flops_per_s", "mfu", "wall_time_s", "useful_time",
                       "device_hours", "energy_per_token", "energy", "energy_per_nat", "carbon",
                       "carbon_per_token", "carbon_per_nat", "water", "money", "money_per_token",
                       "money_per_nat"})  # fmt: skip


def noise_of_one_seed(key: str, values: Sequence[float]) -> float:
    """Return how far two models with one seed each may differ in a quantity by chance alone."""
    if key == "loss":
        return SEEDS_DIFFER_NATS
    return EQUAL_WITHIN * abs(fmean(values)) if key in _MEASURED else 0.0
