"""What the points cannot tell: coefficients without an interval, and directions of coefficients."""

from dataclasses import dataclass

import numpy as np

from benchmarks.laws.fitting.bootstrap import Resamples, at_bounds
from benchmarks.laws.fitting.fit import Fit
from benchmarks.laws.law import FloatArray

EXACT = 1e-9
"""A singular value below this share of the largest is a direction without any effect."""
WIDE = 1.0
"""A direction whose 95% half-width exceeds this (a change by its own size) is undetermined."""
WIDE_RATIO = 100.0
"""Interval of a scale (A, E_max), highest over lowest, beyond which it is unidentified."""
SMALL_EXPONENT = 0.1
"""An exponent is unidentified if its half-width exceeds its value, and this."""
VISIBLE = 0.05
"""Part of the loss that a term of unknown sign may have and count as known to be small."""
AT_BOUND = 0.025
"""Share of resamples at a coefficient's bound beyond which it is unidentified."""
SHARE = 0.3
"""Least part in a direction's unit vector with which a coefficient is named."""
_STEP = 1e-30


@dataclass(frozen=True)
class Direction:
    """A combination of relative changes of coefficients that the points hardly see."""

    half_width: float | None
    """Of 95%, in relative change; `None`: it has no effect at all."""
    weights: dict[str, float]


@dataclass(frozen=True)
class Identifiability:
    """What the points tell about a law's coefficients."""

    condition_number: float | None
    """Of the relative slopes; `None`: infinite."""
    scaled_condition_number: float | None
    """The same in the variables that are searched (problem.py)."""
    directions: tuple[Direction, ...]
    unidentified: tuple[str, ...]


def identifiability(fit: Fit, resamples: Resamples) -> Identifiability:
    """Return what the points cannot tell at a fit."""
    slopes = _relative_slopes(fit)
    _, singular, rows = np.linalg.svd(slopes, full_matrices=False)
    largest = max(float(singular[0]), 1e-300)
    directions, lost = [], set()
    for value, row in zip(singular, rows, strict=True):
        exact = bool(value < EXACT * largest)
        width = None if exact else float(1.96 * np.sqrt(fit.spread.variance) / value)
        if exact or (width is not None and width > WIDE):
            named = {
                name: float(weight)
                for name, weight in zip(fit.law.coefficients, row, strict=True)
                if abs(weight) > (0.05 if exact else SHARE)
            }
            directions.append(Direction(width, named))
            lost |= set(named) if exact else set()
    found = _wide(fit, resamples) | lost
    return Identifiability(
        condition_number=_condition(singular),
        scaled_condition_number=_condition(_scaled_singular(fit)),
        directions=tuple(directions),
        unidentified=tuple(name for name in fit.law.coefficients if name in found),
    )


def _condition(singular: FloatArray) -> float | None:
    if singular[-1] < EXACT * 1e-6 * singular[0]:
        return None
    return float(singular[0] / singular[-1])


def _relative_slopes(fit: Fit) -> FloatArray:
    """Return d ln(prediction) / d (relative change of each coefficient), [n, P]."""
    columns, values = fit.problem.columns, fit.values
    slopes = np.empty((fit.problem.target.size, len(values)))
    for number, (name, value) in enumerate(values.items()):
        size = max(abs(value), SMALL_EXPONENT) if number >= len(fit.law.linear) else abs(value)
        moved = fit.law.predict(columns, {**values, name: value + 1j * _STEP})
        slopes[:, number] = np.imag(moved) / _STEP / np.real(moved) * size
    return np.nan_to_num(slopes, posinf=0, neginf=0)


def _scaled_singular(fit: Fit) -> FloatArray:
    _, slopes = fit.problem.with_slopes(fit.vector[None])
    slopes = np.nan_to_num(slopes, posinf=0, neginf=0)
    norms = np.maximum(np.sqrt((slopes[0] ** 2).sum(axis=0)), 1e-300)
    found: FloatArray = np.linalg.svd(slopes[0] / norms, compute_uv=False)
    return found


def _wide(fit: Fit, resamples: Resamples) -> set[str]:
    """Return coefficients whose resampled interval says nothing, or that end at a bound."""
    wide = set()
    here = at_bounds(fit, fit.vector[None])[0]
    bound = np.maximum(resamples.at_bound, here)
    intervals = resamples.intervals()
    _, scales, _ = fit.problem.basis(fit.vector[None, fit.problem.num_linear :])
    typical = 1.0 if fit.law.logarithmic else float(np.median(fit.problem.target))
    for number, (name, value) in enumerate(fit.values.items()):
        low, high = (float(x) for x in intervals[number])
        half = (high - low) / 2
        if bound[number] > AT_BOUND:
            wide.add(name)
        elif number >= fit.problem.num_linear:
            searched = fit.law.nonlinear[number - fit.problem.num_linear]
            too_wide = (
                high > WIDE_RATIO * low if searched.log else half > max(abs(value), SMALL_EXPONENT)
            )
            wide |= {name} if too_wide else set()
        elif fit.law.linear[number].positive:
            wide |= {name} if high > WIDE_RATIO * low else set()
        elif low < 0 < high and half * float(scales[0, number]) > VISIBLE * typical:
            wide.add(name)
    return wide
