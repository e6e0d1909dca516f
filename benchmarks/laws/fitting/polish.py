"""The last digits of a fit, by scipy: quasi-Newton for smooth losses, linear programs for |r|."""

from typing import Any

import numpy as np

from benchmarks.laws.fitting.descent import plain_data
from benchmarks.laws.fitting.penalty import Penalty
from benchmarks.laws.fitting.problem import Problem
from benchmarks.laws.law import FloatArray

LINEAR_PROGRAMS = 40
MAX_LP_POINTS = 2000
"""Of more points the smoothed |r| of the descent stays: a linear program would take minutes."""


def polish(problem: Problem, penalty: Penalty, vector: FloatArray) -> FloatArray:
    """Return a vector [P] of no greater loss than the one given."""
    if penalty.absolute and problem.target.size > MAX_LP_POINTS:
        return vector
    polished = (_absolute if penalty.absolute else _smooth)(problem, penalty, vector)
    before, after = (_objective(problem, penalty, v) for v in (vector, polished))
    return polished if after < before else vector


def residuals_of(problem: Problem, vector: FloatArray) -> FloatArray:
    """Return ln(predicted) - ln(observed), [n]."""
    with np.errstate(all="ignore"):
        found: FloatArray = problem.log_predicted(vector[None])[0] - np.log(problem.target)
    return found


def _objective(problem: Problem, penalty: Penalty, vector: FloatArray) -> float:
    value = penalty.objective(residuals_of(problem, vector))
    return value if np.isfinite(value) else float("inf")


def _smooth(problem: Problem, penalty: Penalty, vector: FloatArray) -> FloatArray:
    """Minimize by L-BFGS-B in units in which every coefficient's curvature is alike."""
    # Most that imports this module reads a fitted law and polishes none.
    from scipy.optimize import minimize

    target = plain_data(problem).target_log
    _, slopes = problem.with_slopes(vector[None])
    unit = 1 / np.maximum(np.sqrt((slopes[0] ** 2).sum(axis=0)), 1e-12)
    start_cost = max(_objective(problem, penalty, vector), 1e-300)

    def loss(moved: FloatArray) -> tuple[float, FloatArray]:
        with np.errstate(all="ignore"):
            logs, slopes = problem.with_slopes((vector + moved * unit)[None])
            residuals = logs[0] - target
            value = float(penalty.cost(residuals).sum())
            slope = slopes[0].T @ (penalty.weight(residuals) * residuals) * unit
        if not np.isfinite(value) or not np.isfinite(slope).all():
            return 1e6, np.zeros_like(moved)
        return value / start_cost, slope / start_cost

    bounds = list(zip((problem.low - vector) / unit, (problem.high - vector) / unit, strict=True))
    found: Any = minimize(
        loss,
        np.zeros_like(vector),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": 600, "maxcor": 30, "ftol": 1e-15, "gtol": 1e-10},
    )
    return np.asarray(np.clip(vector + found.x * unit, problem.low, problem.high))


def _absolute(problem: Problem, penalty: Penalty, vector: FloatArray) -> FloatArray:
    """Minimize the sum of |r| by linear programs within a shrinking box about the best vector."""
    best, value = vector, _objective(problem, penalty, vector)
    target = plain_data(problem).target_log
    _, slopes = problem.with_slopes(vector[None])
    unit = 1 / np.maximum(np.sqrt((slopes[0] ** 2).mean(axis=0)), 1e-12)
    box = 0.05
    for _ in range(LINEAR_PROGRAMS):
        logs, slopes = problem.with_slopes(best[None])
        low = np.maximum(-box, (problem.low - best) / unit)
        high = np.minimum(box, (problem.high - best) / unit)
        move = _least_absolute(slopes[0] * unit, logs[0] - target, low, high)
        if move is None:
            break
        moved = np.clip(best + move * unit, problem.low, problem.high)
        new = _objective(problem, penalty, moved)
        if new < value:
            gain, best, value = value - new, moved, new
            box = max(box, 2 * float(np.abs(move).max()))
            if gain < 1e-13 * value:
                break
        else:
            box /= 4
        if box < 1e-11:
            break
    return best


def _least_absolute(
    slopes: FloatArray, residuals: FloatArray, low: FloatArray, high: FloatArray
) -> FloatArray | None:
    """Return the move [P] within a box that makes sum |residuals + slopes move| least."""
    from scipy import sparse
    from scipy.optimize import linprog

    points, size = slopes.shape
    eye = sparse.identity(points, format="csc")
    # move, then the positive and negative part of every residual
    found: Any = linprog(
        np.concatenate([np.zeros(size), np.ones(2 * points)]),
        A_eq=sparse.hstack([slopes, -eye, eye], format="csc"),
        b_eq=-residuals,
        bounds=[*zip(low, high, strict=True), *[(0, None)] * (2 * points)],
        method="highs",
    )
    return np.asarray(found.x[:size]) if found.success else None
