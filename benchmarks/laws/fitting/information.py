"""The corrected Akaike criterion of a fit."""

import numpy as np

from benchmarks.laws.fitting.fit import Fit


def aicc(fit: Fit) -> float | None:
    """Return AICc; `None` for too few points.

    The likelihood is Laplace's for `huber` (its delta is far below usual residuals) and `lad`, the
    normal one for `squared`, both of ln L, with a fitted scale that counts as a coefficient.
    """
    points, count = fit.residuals.size, fit.problem.num_coefficients + 1
    if points - count - 1 <= 0:
        return None
    if fit.penalty.name == "squared":
        spread = max(float(np.mean(fit.residuals**2)), 1e-300)
        deviance = points * (np.log(2 * np.pi * spread) + 1)
    else:
        spread = max(float(np.mean(np.abs(fit.residuals))), 1e-300)
        deviance = 2 * points * (np.log(2 * spread) + 1)
    return float(deviance + 2 * count + 2 * count * (count + 1) / (points - count - 1))
