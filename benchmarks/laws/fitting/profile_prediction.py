"""The profile interval of a prediction: how far it may go if all coefficients follow.

One more point is added where the prediction is wanted, with so much weight that every fit passes
through it, and is moved until the loss of the others has risen as far as profile.py allows.
"""

from collections.abc import Mapping

import numpy as np

from benchmarks.laws.fitting.descent import Data, costs, descend
from benchmarks.laws.fitting.fit import Fit
from benchmarks.laws.fitting.problem import Problem
from benchmarks.laws.fitting.profile import (
    CHI_SQUARED_95,
    ITERATIONS,
    SIGNED_STEPS,
    Interval,
    covariance_of,
    sides_of,
)

STIFFNESS = 1e4
"""How much closer than its own standard error the fits pass through the added point."""


def prediction_interval(fit: Fit, at: Mapping[str, float]) -> Interval:
    """Return the 95% interval of a prediction, open (`None`) where nothing limits it.

    Args:
        fit: The fit to the points.
        at: The law's columns where the prediction is wanted.
    """
    wanted = fit.law.predict({n: np.array([at[n]]) for n in fit.law.columns}, fit.values)
    columns = {n: np.append(column, at[n]) for n, column in fit.problem.columns.items()}
    problem = Problem(fit.law, columns, np.append(fit.problem.target, wanted))
    values = np.array([[fit.values[name] for name in fit.law.coefficients]])
    vector = problem.vector(values)[0]
    _, slopes = problem.with_slopes(vector[None])
    covariance = covariance_of(problem, vector, fit.spread.variance)
    follow = covariance @ slopes[0, -1]
    error = float(np.sqrt(max(float(slopes[0, -1] @ follow), 0.0)))
    if not error > 0 or not np.isfinite(error):
        return None, None
    moves = SIGNED_STEPS * error
    starts = vector + SIGNED_STEPS[:, None] * follow / error
    penalty = fit.penalty.for_many()
    logs = np.log(problem.target)
    targets = np.tile(logs, (moves.size, 1))
    targets[:, -1] += moves
    stiff = STIFFNESS * fit.spread.rise / error**2
    weights = np.append(
        np.ones(logs.size - 1), stiff * penalty.delta if penalty.absolute else stiff
    )
    data = Data(targets, weights)
    found, _ = descend(problem, penalty, data, starts, ITERATIONS, fit.spread.tolerance)
    others = Data(logs, np.append(np.ones(logs.size - 1), 0.0))
    least = costs(problem, penalty, others, vector[None])[0]
    rise = np.maximum(costs(problem, penalty, others, found) - least, 0)
    reached = problem.log_predicted(found)[:, -1]
    sides = sides_of(reached, rise / (CHI_SQUARED_95 / 2 * fit.spread.rise), float(logs[-1]))
    low, high = (None if side is None else float(np.exp(side)) for side in sides)
    return low, high
