"""A law's best losses and sizes over a range of compute, for its coefficients and their resamples.

All resamples are evaluated at once on one grid of sizes; the least loss is refined by a parabola.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.laws.fitted_law import FittedLaw
from benchmarks.laws.fitting.fit import Fit
from benchmarks.laws.law import FloatArray, Law, Space
from benchmarks.laws.optimum import FLOPS_PER_PARAMETER_TOKEN, Compute, Dials, active_at, columns_at

SIZES = np.geomspace(1e3, 1e18, 301)
RESAMPLES = 100
MAX_VALUES = 9
"""Values of one dial that curves try."""
MAX_COMBINATIONS = 64


@dataclass(frozen=True)
class Curve:
    """Least losses at given FLOPs, and the sizes that have them; B = 1 + resamples, own first."""

    flops: FloatArray
    """[C]."""
    losses: FloatArray
    """[C, B]; NaN where the law has no value."""
    sizes: FloatArray
    """[C, B], of the law's own size column; NaN where there is no best size."""
    tokens: FloatArray
    """[C, B]."""


def dial_values(fitted: FittedLaw) -> dict[str, tuple[float, ...]]:
    """Return the values of a law's dials that curves try, evenly few of many."""
    found = {}
    for name, values in fitted.dial_values().items():
        index = np.unique(np.linspace(0, max(0, len(values) - 1), MAX_VALUES).round().astype(int))
        found[name] = tuple(values[i] for i in index) if values else ()
    return found


def combinations(values: Mapping[str, Sequence[float]]) -> list[dict[str, float]]:
    """Return at most `MAX_COMBINATIONS` combinations of dials, evenly many of more."""
    found = [dict(zip(values, row, strict=True)) for row in itertools.product(*values.values())]
    if len(found) <= MAX_COMBINATIONS:
        return found
    return [found[i] for i in np.linspace(0, len(found) - 1, MAX_COMBINATIONS).astype(int)]


def coefficient_rows(fitted: FittedLaw) -> dict[str, FloatArray]:
    """Return each coefficient as [B, 1]: the law's own first, then of at most 100 resamples."""
    rows = np.array([[fitted.values[name] for name in fitted.law.coefficients]])
    if fitted.resamples is not None and len(fitted.resamples):
        rows = np.concatenate([rows, fitted.resamples[:RESAMPLES]])
    return {name: rows[:, i, None] for i, name in enumerate(fitted.law.coefficients)}


def best_curve(fitted: FittedLaw, space: Space, dials: Sequence[Dials], flops: FloatArray) -> Curve:
    """Return the best over combinations of dials; tokens follow from 6 x active x tokens."""
    values = coefficient_rows(fitted)
    count = len(next(iter(values.values())))
    losses = np.full((flops.size, count), np.nan)
    sizes, tokens = losses.copy(), losses.copy()
    for place, budget in enumerate(flops):
        for one in dials:
            loss, size, data = _best(fitted.law, space, values, one, float(budget))
            better = np.isnan(losses[place]) | (loss < losses[place])
            losses[place] = np.where(better, loss, losses[place])
            sizes[place] = np.where(better, size, sizes[place])
            tokens[place] = np.where(better, data, tokens[place])
    return Curve(flops, losses, sizes, tokens)


def predicted(
    law: Law, columns: Mapping[str, FloatArray], values: Mapping[str, FloatArray]
) -> FloatArray:
    """Return losses [B, S] by coefficients [B, 1]; NaN where there is none above 0."""
    with np.errstate(all="ignore"):
        found = np.asarray(law.predict(columns, values), dtype=float)
    found = np.broadcast_to(found, np.broadcast_shapes(found.shape, (len(found), 1)))
    return np.where(np.isfinite(found) & (found > 0), found, np.nan)


def own_losses(fitted: FittedLaw | Fit, columns: Mapping[str, FloatArray]) -> FloatArray:
    """Return losses [S] by a law's own coefficients; NaN where there is none above 0."""
    values = {name: np.array([[value]]) for name, value in fitted.values.items()}
    return predicted(fitted.law, columns, values).reshape(-1)


def _best(
    law: Law, space: Space, values: Mapping[str, FloatArray], dials: Dials, flops: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return least losses, their sizes and tokens, [B] each."""
    unit = active_at(space, np.ones(1), dials)[0]
    if space.fixed_tokens is not None:
        size = np.array([flops / (FLOPS_PER_PARAMETER_TOKEN * space.fixed_tokens * unit)])
        loss = predicted(law, columns_at(space, size, dials, Compute(flops)), values)[:, 0]
        return loss, np.full(loss.shape, size[0]), np.full(loss.shape, space.fixed_tokens)
    losses = predicted(law, columns_at(space, SIZES, dials, Compute(flops)), values)
    rows = np.arange(len(losses))
    index = np.where(np.isnan(losses), np.inf, losses).argmin(axis=1)
    inner = (index > 0) & (index < SIZES.size - 1)
    near = np.clip(index, 1, SIZES.size - 2)
    left, middle, right = (losses[rows, near + i] for i in (-1, 0, 1))
    with np.errstate(all="ignore"):
        bend = left - 2 * middle + right
        move = np.clip(np.nan_to_num((left - right) / (2 * bend)), -1, 1)
        loss = np.where(inner, middle - bend * move**2 / 2, losses[rows, index])
    step = float(np.log(SIZES[1] / SIZES[0]))
    size = np.where(inner, SIZES[near] * np.exp(move * step), np.nan)
    return loss, size, flops / (FLOPS_PER_PARAMETER_TOKEN * size * unit)
