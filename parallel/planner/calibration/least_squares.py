"""Robust least squares of a few parameters: Levenberg-Marquardt with soft-L1 weights.

Deterministic and small, so that a fit needs nothing but numpy. Levenberg (1944), Marquardt (1963);
the loss 2 (sqrt(1 + r^2) - 1) lets outliers pull with bounded force.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

_STEP = 1e-4
_MOST_DAMPING = 1e9


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Parameters where the loss is least, and what is left there."""

    parameters: Vector
    residuals: Vector
    iterations: int


def fit_least_squares(
    residuals_of: Callable[[Vector], Vector],
    start: Vector,
    *,
    outlier: float = 0.1,
    most_iterations: int = 60,
    tolerance: float = 1e-5,
) -> Fit:
    """Return the parameters for which the residuals' soft-L1 loss is least, from a start.

    Args:
        residuals_of: Residuals at given parameters; all parameters of like size (logarithms).
        start: Where to begin.
        outlier: Size of a residual from which on it pulls linearly.
        most_iterations: Steps after which to stop.
        tolerance: Relative gain of a step below which to stop.
    """
    parameters = start.copy()
    residuals = residuals_of(parameters)
    loss = _loss(residuals, outlier)
    damping = 1e-3
    iteration = 0
    while iteration < most_iterations and damping < _MOST_DAMPING:
        iteration += 1
        slopes = _slopes(residuals_of, parameters, residuals)
        weights = 1.0 / np.sqrt(1.0 + (residuals / outlier) ** 2)
        normal = slopes.T @ (weights[:, None] * slopes)
        gradient = slopes.T @ (weights * residuals)
        gain = 0.0
        while damping < _MOST_DAMPING:
            added = damping * np.diag(np.diag(normal) + 1e-9)
            tried = parameters - np.linalg.solve(normal + added, gradient)
            tried_residuals = residuals_of(tried)
            tried_loss = _loss(tried_residuals, outlier)
            if tried_loss < loss:
                gain = (loss - tried_loss) / loss
                parameters, residuals, loss = tried, tried_residuals, tried_loss
                damping = max(damping / 5, 1e-9)
                break
            damping *= 4
        if gain < tolerance:
            break
    return Fit(parameters=parameters, residuals=residuals, iterations=iteration)


def _loss(residuals: Vector, outlier: float) -> float:
    if not np.all(np.isfinite(residuals)):
        return float("inf")
    return float(np.sum(np.sqrt(1.0 + (residuals / outlier) ** 2) - 1.0))


def _slopes(
    residuals_of: Callable[[Vector], Vector], parameters: Vector, residuals: Vector
) -> NDArray[np.float64]:
    columns = []
    for index in range(len(parameters)):
        moved = parameters.copy()
        moved[index] += _STEP
        columns.append((residuals_of(moved) - residuals) / _STEP)
    return np.stack(columns, axis=1)
