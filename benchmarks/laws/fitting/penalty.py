"""What a residual costs: its square, Huber's function of it, or its absolute value.

Residuals are ln(predicted) - ln(observed), as in Hoffmann et al. 2022.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.errors import BenchmarkError
from benchmarks.laws.law import FloatArray

HUBER_DELTA = 1e-3
_LAD_DELTA = 1e-6
"""Descent on |r| takes Huber's function of this delta; `lad.py` then goes to the kink."""


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


def robust_scale(penalty: Penalty, residuals: FloatArray, coefficients: int) -> float:
    """Return mean(psi^2) / mean(psi') with psi the penalty's slope: what one point is worth.

    An M-estimator's covariance is this times the inverse of J'J, and 2 (Q1 - Q0) over it is
    distributed as chi squared (Huber & Ronchetti, Robust Statistics). For |r| the mean slope's
    derivative is twice the residuals' density at 0, counted in a window about it.
    """
    size: Any = np.abs(residuals)
    freedom = max(1, residuals.size - coefficients)
    if np.isinf(penalty.delta):
        return float((size**2).sum() / freedom)
    window = max(penalty.delta, float(np.quantile(size, 0.4)) if size.size else 0.0)
    if penalty.absolute:
        density = float((size <= window).mean()) / max(window, 1e-300)
        return residuals.size / freedom / max(density, 1e-300)
    within = float((size <= penalty.delta).mean())
    if within < 0.1:  # too few to count: the density about 0 times the width of the smooth part
        within = float((size <= window).mean()) * penalty.delta / max(window, 1e-300)
    mean_square = float(np.minimum(size, penalty.delta).__pow__(2).mean())
    return mean_square / within * residuals.size / freedom
