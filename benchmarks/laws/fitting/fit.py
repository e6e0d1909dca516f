"""The fit of one law to points."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmarks.errors import BenchmarkError
from benchmarks.laws.fitting.descent import descend, plain_data
from benchmarks.laws.fitting.penalty import Penalty, Spread, spread
from benchmarks.laws.fitting.polish import polish, residuals_of
from benchmarks.laws.fitting.problem import Problem
from benchmarks.laws.fitting.seeds import seed_vectors
from benchmarks.laws.law import FloatArray, Law
from benchmarks.laws.law_columns import LawPoints

STARTS = 12
POLISHED = 2
"""Of squares and Huber's loss; for |r| the best alone, as linear programs take most of the time."""
ITERATIONS = 60
FIRST_POINTS = 1000
"""Points that the first descents see; of more, evenly many by loss are taken."""


@dataclass(frozen=True)
class Fit:
    """A law with coefficients found on points."""

    law: Law
    problem: Problem
    penalty: Penalty
    vector: FloatArray
    """[P], as in problem.py."""

    @cached_property
    def values(self) -> dict[str, float]:
        """Coefficients by name."""
        found = self.problem.coefficients(self.vector[None])[0]
        return dict(zip(self.law.coefficients, map(float, found), strict=True))

    @cached_property
    def residuals(self) -> FloatArray:
        """ln(predicted) - ln(observed), [n]."""
        return residuals_of(self.problem, self.vector)

    @property
    def objective(self) -> float:
        """The loss of the residuals, summed over points."""
        return self.penalty.objective(self.residuals)

    @cached_property
    def spread(self) -> Spread:
        """What the residuals say about the certainty of coefficients."""
        return spread(self.penalty, self.residuals, self.problem.num_coefficients)


def fit_law(law: Law, points: LawPoints, penalty: Penalty) -> Fit:
    """Fit a law; the same points give the same fit.

    Raises:
        BenchmarkError: There are too few points, or the law has no value at them.
    """
    problem = Problem(law, points.columns, points.target)
    needed = problem.num_coefficients + 1
    if points.target.size < needed:
        raise BenchmarkError(
            f"law {law.name!r} has {problem.num_coefficients} coefficients and there are"
            f" {points.target.size} points: at least {needed} are needed"
        )
    first = problem.thinned(FIRST_POINTS)
    starts = seed_vectors(first, penalty, STARTS)
    found, losses = descend(first, penalty, plain_data(first), starts, ITERATIONS)
    order = np.argsort(losses, kind="stable")
    if not np.isfinite(losses[order[0]]):
        raise BenchmarkError(
            f"law {law.name!r} has no finite positive value at these points from any start: see its"
            " form, and divide large columns (parameters / 1e9)"
        )
    best = found[order[: 1 if penalty.absolute else POLISHED]]
    if first is not problem:
        best = problem.vector(first.coefficients(best))
        best, _ = descend(problem, penalty, plain_data(problem), best, ITERATIONS)
    fits = [Fit(law, problem, penalty, polish(problem, penalty, one)) for one in _distinct(best)]
    return min(fits, key=lambda fit: fit.objective)


def _distinct(vectors: FloatArray) -> list[FloatArray]:
    """Return vectors without those that descent brought to the same place."""
    kept: list[FloatArray] = []
    for vector in vectors:
        if not any(np.allclose(vector, other, rtol=1e-3, atol=1e-6) for other in kept):
            kept.append(vector)
    return kept
