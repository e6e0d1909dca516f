"""Intervals by resampling points: what other draws of the same runs would have given."""

from dataclasses import dataclass

import numpy as np

from benchmarks.laws.fitting.descent import Data, descend
from benchmarks.laws.fitting.fit import Fit
from benchmarks.laws.law import FloatArray

RESAMPLES = 200
LEAST_RESAMPLES = 40
WORK = 200_000
"""Resamples x points: of many points fewer resamples are drawn."""
ITERATIONS = 40
LEVEL = 0.95


@dataclass(frozen=True)
class Resamples:
    """Coefficients of fits to resampled points."""

    coefficients: FloatArray
    """[B, P] in the law's own units."""
    at_bound: FloatArray
    """[P]: share of the fits that ended at a coefficient's bound."""

    def intervals(self) -> FloatArray:
        """Return the middle 95% of each coefficient, [P, 2]."""
        tails = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
        return np.percentile(self.coefficients, tails, axis=0).T


def bootstrap(fit: Fit, seed: int = 0, resamples: int | None = None) -> Resamples:
    """Refit points drawn with replacement, each time as many as there are.

    Args:
        fit: The fit to all points, where each refit starts.
        seed: Of the drawing.
        resamples: How many; `None`: 200, fewer beyond 1,000 points.
    """
    points = fit.problem.target.size
    count = resamples or int(np.clip(WORK // points, LEAST_RESAMPLES, RESAMPLES))
    random = np.random.default_rng(seed)
    weights = random.multinomial(points, np.full(points, 1 / points), size=count).astype(float)
    data = Data(np.log(fit.problem.target), weights)
    penalty = fit.penalty.for_many()
    starts = np.repeat(fit.vector[None], count, axis=0)
    tolerance = fit.spread.tolerance
    found, _ = descend(fit.problem, penalty, data, starts, ITERATIONS, tolerance)
    return Resamples(
        fit.problem.coefficients(found), at_bounds(fit, found).mean(axis=0, dtype=float)
    )


def at_bounds(fit: Fit, vectors: FloatArray) -> FloatArray:
    """Return which coefficients [B, P] of vectors [B, P] are at a bound, as 0 and 1."""
    low, high = fit.problem.low, fit.problem.high
    span = np.where(np.isfinite(high - low), high - low, 1.0)
    close = (vectors <= low + 1e-6 * span) | (vectors >= high - 1e-6 * span)
    return np.asarray(close, dtype=float)
