"""FLOPs of the dense model of equal loss over those of a sparse one, by a law of losses."""

from dataclasses import dataclass

import numpy as np

from benchmarks.laws.curves import best_curve, combinations, dial_values
from benchmarks.laws.fitted_law import FittedLaw
from benchmarks.laws.law import FloatArray

DENSE = {"experts": 1.0, "sparsity": 0.0, "activation_ratio": 1.0}
"""Columns that tell how sparse a model is, with a dense model's value."""
REACH = 1e4
"""Dense models are looked at up to so many times the sparse one's FLOPs."""
STEPS = 61
"""Of dense models: the sparse one's FLOPs are among them."""


@dataclass(frozen=True)
class LeverageCurve:
    """Leverage at one number of FLOPs; B = 1 + resamples, the law's own first."""

    flops: float
    column: str
    values: FloatArray
    """[S], the dial's values, the dense one among them."""
    leverage: FloatArray
    """[S, B]; NaN where no dense model within reach has that loss."""


def leverage_dial(fitted: FittedLaw) -> str | None:
    """Return the dial that tells a dense model from a sparse one; `None` without one."""
    return next((name for name in dial_values(fitted) if name in DENSE), None)


def leverage_curve(fitted: FittedLaw, column: str, flops: float) -> LeverageCurve:
    """Return how many times the FLOPs a dense model would need, both at their best sizes."""
    space = fitted.law.space
    assert space is not None
    values = dial_values(fitted)
    dense = DENSE[column]
    grid = np.geomspace(flops / 10, flops * REACH, STEPS)
    reference = best_curve(fitted, space, combinations({**values, column: (dense,)}), grid).losses
    tried = np.unique([dense, *values[column]])
    found = np.full((tried.size, reference.shape[1]), np.nan)
    for place, value in enumerate(tried):
        dials = combinations({**values, column: (float(value),)})
        losses = best_curve(fitted, space, dials, np.array([flops])).losses[0]
        for row, loss in enumerate(losses):
            known = np.isfinite(reference[:, row])
            fall, budgets = -reference[known, row], np.log(grid[known])
            if known.any() and fall[0] <= -loss <= fall[-1]:
                found[place, row] = np.exp(np.interp(-loss, fall, budgets)) / flops
    return LeverageCurve(flops, column, tried, found)
