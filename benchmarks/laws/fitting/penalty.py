"""What a residual costs: its square, Huber's function of it, or its absolute value.

Residuals are ln(predicted) - ln(observed), as in Hoffmann et al. 2022.
"""

from dataclasses import dataclass

import numpy as np

from benchmarks.errors import BenchmarkError
from benchmarks.laws.law import FloatArray

HUBER_DELTA = 1e-3
_LAD_DELTA = 1e-6
"""Descent on |r| takes Huber's function of this delta; `polish.py` then goes to the kink."""
SMOOTH_LAD_DELTA = 1e-4
LEAST_WITHIN = 0.1
"""Share of residuals within Huber's delta that is enough to count them."""


@dataclass(frozen=True)
class Penalty:
    """A loss of residuals, summed over points."""

    name: str
    delta: float
    """Where Huber's function becomes linear; infinite for squares."""

    @property
    def absolute(self) -> bool:
        """Whether it is the sum of absolute values."""
        return self.name == "lad"

    def smoothed(self, delta: float) -> "Penalty":
        """Return the same with a wider smooth part."""
        return Penalty(self.name, max(delta, self.delta))

    def for_many(self) -> "Penalty":
        """Return what all fits but the best descend on: |r| smoothed below its spread."""
        return self.smoothed(SMOOTH_LAD_DELTA) if self.absolute else self

    def cost(self, residuals: FloatArray) -> FloatArray:
        """Return what each residual costs in descent; |r| itself within delta for `lad`."""
        size = np.abs(residuals)
        inner = np.minimum(size, self.delta)
        with np.errstate(over="ignore", invalid="ignore"):
            outside = np.where(size > self.delta, self.delta * (size - self.delta), 0.0)
            cost = inner**2 / 2 + outside
        return cost / self.delta if self.absolute else cost

    def weight(self, residuals: FloatArray) -> FloatArray:
        """Return slope / residual, the weight of iterated least squares."""
        weight = self.delta / np.maximum(np.abs(residuals), self.delta)
        if np.isinf(self.delta):
            weight = np.ones_like(residuals)
        return weight / self.delta if self.absolute else weight

    def objective(self, residuals: FloatArray) -> float:
        """Return the sum as reported: of r^2 / 2, of Huber's function, or of |r|."""
        if self.absolute:
            return float(np.abs(residuals).sum())
        return float(self.cost(residuals).sum())


PENALTIES = {
    "huber": Penalty("huber", HUBER_DELTA),
    "lad": Penalty("lad", _LAD_DELTA),
    "squared": Penalty("squared", float("inf")),
}


def find_penalty(name: str) -> Penalty:
    """Return the penalty of that name.

    Raises:
        BenchmarkError: There is none.
    """
    if name not in PENALTIES:
        raise BenchmarkError(f"--loss {name}: none of {', '.join(PENALTIES)}")
    return PENALTIES[name]


@dataclass(frozen=True)
class Spread:
    """What the residuals say about the certainty of coefficients (psi: the penalty's slope)."""

    variance: float
    """mean(psi^2) / mean(psi')^2: an M-estimator's covariance is this times the inverse of J'J."""
    rise: float
    """mean(psi^2) / mean(psi'): twice the loss's rise over it is distributed as chi squared."""

    @property
    def tolerance(self) -> float:
        """A difference of loss that moves no coefficient by more than 1% of its standard error."""
        return 1e-4 / 2 * self.rise


def spread(penalty: Penalty, residuals: FloatArray, coefficients: int) -> Spread:
    """Return the spread of a fit's residuals (Huber & Ronchetti, Robust Statistics, chapters 3, 7).

    For |r| the mean of psi' is twice the residuals' density at 0, counted in a window about it;
    so is Huber's where too few residuals are within its delta.
    """
    size = np.abs(residuals)
    freedom = max(1, residuals.size - coefficients) / residuals.size
    if np.isinf(penalty.delta):
        square = float(np.mean(size**2)) / freedom
        return Spread(square, square)
    window = max(penalty.delta, float(np.quantile(size, 0.4)))
    density = float((size <= window).mean()) / window
    if penalty.absolute:
        return Spread(1 / density**2 / freedom, 1 / density / freedom)
    within = float((size <= penalty.delta).mean())
    if within < LEAST_WITHIN:
        within = density * penalty.delta
    square = float(np.mean(np.minimum(size, penalty.delta) ** 2)) / freedom
    return Spread(square / within**2, square / within)
