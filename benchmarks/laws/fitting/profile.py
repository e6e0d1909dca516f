"""Intervals by profile likelihood: how far a coefficient may go if all others follow.

Unlike the bootstrap it sees the points as they are, and an interval without an end is found as
such: knees such as E_max often have none. The threshold is that of the robust likelihood ratio
(penalty.py, `Spread`).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.laws.fitting.descent import Data, descend
from benchmarks.laws.fitting.fit import Fit
from benchmarks.laws.fitting.problem import Problem
from benchmarks.laws.law import FloatArray

CHI_SQUARED_95 = 3.8414588
"""95% quantile of chi squared with one degree of freedom."""
STEPS = np.array([1.0, 1.6, 2.2, 3.0, 4.5, 8.0])
"""Distances from the fit that are looked at, in standard errors."""
SIGNED_STEPS = np.concatenate([-STEPS[::-1], STEPS])
NEAR = 3
"""Distances on each side that are looked at first: the others only where they tell no end."""
ITERATIONS = 30

Interval = tuple[float | None, float | None]


def profile_intervals(fit: Fit) -> dict[str, Interval]:
    """Return 95% intervals of the coefficients that one place in the vector holds.

    Those are the searched ones, and those of terms without a searched coefficient. A side is
    `None` where the loss does not rise enough within the bounds or eight standard errors.
    """
    covariance = covariance_of(fit.problem, fit.vector, fit.spread.variance)
    places = [*_fixed_scale(fit), *range(fit.problem.num_linear, fit.problem.num_coefficients)]
    errors = np.sqrt(np.maximum(np.diag(covariance), 0))
    places = [p for p in places if np.isfinite(errors[p]) and errors[p] > 0]
    if not places or fit.spread.rise <= 0:
        return {}
    found = np.full((len(places), SIGNED_STEPS.size, 2), np.nan)
    near = np.abs(SIGNED_STEPS) <= STEPS[NEAR - 1]
    wanted = np.tile(near, (len(places), 1))
    _look(fit, covariance, places, wanted, found)
    half = STEPS.size
    for side in (slice(0, half), slice(half, None)):  # open sides are followed further
        ended = np.asarray((found[:, side, 1] >= 1).any(axis=1))
        wanted[:, side] = ~near[side] & ~ended[:, None]
    _look(fit, covariance, places, wanted, found)
    return {
        fit.law.coefficients[place]: _natural(
            fit, place, sides_of(found[number, :, 0], found[number, :, 1], float(fit.vector[place]))
        )
        for number, place in enumerate(places)
    }


def _look(
    fit: Fit,
    covariance: FloatArray,
    places: Sequence[int],
    wanted: NDArray[np.bool_],
    found: FloatArray,
) -> None:
    """Fill in where each place [places, steps, 0] is at the wanted steps, and the loss's rise."""
    errors = np.sqrt(np.diag(covariance))
    rows = list(zip(*np.nonzero(wanted), strict=True))
    if not rows:
        return
    starts, fixed = [fit.vector], [np.zeros(fit.vector.size, dtype=bool)]
    for number, step in rows:
        place = places[number]
        follow = covariance[place] / covariance[place, place]
        starts.append(fit.vector + SIGNED_STEPS[step] * errors[place] * follow)
        fixed.append(np.arange(fit.vector.size) == place)
    stacked = np.clip(np.array(starts), fit.problem.low, fit.problem.high)
    points = np.ones(fit.problem.target.size)
    data = Data(np.log(fit.problem.target), points, np.array(fixed))
    penalty, tolerance = fit.penalty.for_many(), fit.spread.tolerance
    vectors, losses = descend(fit.problem, penalty, data, stacked, ITERATIONS, tolerance)
    threshold = CHI_SQUARED_95 / 2 * fit.spread.rise
    for vector, loss, (number, step) in zip(vectors[1:], losses[1:], rows, strict=True):
        found[number, step] = vector[places[number]], max(loss - losses[0], 0) / threshold


def covariance_of(problem: Problem, vector: FloatArray, variance: float) -> FloatArray:
    """Return the covariance [P, P] of a vector [P], with what one residual's variance is worth."""
    _, slopes = problem.with_slopes(vector[None])
    gram = np.nan_to_num(slopes[0].T @ slopes[0], posinf=0, neginf=0)
    unit = np.outer(*2 * [1 / np.sqrt(np.maximum(np.diag(gram), 1e-300))])
    return np.asarray(variance * np.linalg.pinv(gram * unit, rcond=1e-13) * unit)


def _fixed_scale(fit: Fit) -> list[int]:
    """Return linear coefficients whose term does not change with the searched ones."""
    theta = fit.vector[None, fit.problem.num_linear :]
    moved = np.clip(
        theta * 1.01 + 1e-3,
        fit.problem.low[fit.problem.num_linear :],
        fit.problem.high[fit.problem.num_linear :],
    )
    _, here, _ = fit.problem.basis(theta)
    _, there, _ = fit.problem.basis(moved)
    return [int(i) for i in np.flatnonzero(here[0] == there[0])]


def sides_of(places: FloatArray, rise: FloatArray, centre: float) -> Interval:
    """Return where the square root of the rise, linear for a parabola, crosses 1 on each side."""
    half = places.size // 2
    left = _crossing(places[:half][::-1], rise[:half][::-1], centre)
    return left, _crossing(places[half:], rise[half:], centre)


def _crossing(places: FloatArray, rise: FloatArray, centre: float) -> float | None:
    before, height = centre, 0.0
    seen = ~np.isnan(rise)
    for place, value in zip(places[seen], np.sqrt(rise[seen]), strict=True):
        if value >= 1 and np.isfinite(value):
            return float(before + (place - before) * (1 - height) / (value - height))
        before, height = float(place), float(value)
    return None


def _natural(fit: Fit, place: int, sides: Interval) -> Interval:
    number = place - fit.problem.num_linear
    if number < 0:
        _, scale, _ = fit.problem.basis(fit.vector[None, fit.problem.num_linear :])
        low, high = (None if s is None else s / float(scale[0, place]) for s in sides)
        return low, high
    if fit.law.nonlinear[number].log:
        low, high = (None if s is None else float(np.exp(s)) for s in sides)
        return low, high
    return sides
