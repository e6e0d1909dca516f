"""FLOPs that a dense model needs for a sparse one's loss, over the sparse one's."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.laws.compare import LawFit
from benchmarks.laws.fitting.bootstrap import LEVEL
from benchmarks.laws.law import FloatArray
from benchmarks.study.ladder_curve import Ladder, best_of_ladder
from benchmarks.study.minima import Minimum

DENSE = 1
REACH = 100.0
"""Dense models are looked at up to so many times the sparse one's FLOPs, and down to a tenth."""
STEPS = 241


@dataclass(frozen=True)
class Leverage:
    """Leverage of one number of experts at one budget, both models at their best size."""

    experts: int
    flops: float
    value: float | None
    """`None`: no dense model within reach has that loss."""
    interval: tuple[float, float] | None
    source: str
    """"laws": of both; "minimum": the measured sparse minimum, and the dense law."""

    def as_json(self) -> dict[str, Any]:
        """Return all of it."""
        return asdict(self)


def leverage_of_laws(
    fits: Mapping[int, LawFit], ladders: Mapping[int, Ladder], budgets: Sequence[float]
) -> list[Leverage]:
    """Return the leverage by two laws, whose resamples are paired for the interval."""
    found = []
    for experts in sorted(set(fits) - {DENSE}):
        sparse = best_of_ladder(fits[experts], ladders[experts], np.array(budgets)).losses
        for budget, losses in zip(budgets, sparse, strict=True):
            found.append(_leverage(fits[DENSE], ladders[DENSE], experts, budget, losses, "laws"))
    return found


def leverage_of_minima(
    fits: Mapping[int, LawFit], ladders: Mapping[int, Ladder], minima: Sequence[Minimum]
) -> list[Leverage]:
    """Return the leverage of each sparse minimum of the runs; its interval is the dense law's."""
    return [
        _leverage(
            fits[DENSE], ladders[DENSE], m.experts, m.flops, np.array([m.best_loss]), "minimum"
        )
        for m in minima
        if m.experts != DENSE and m.best_loss is not None
    ]


def _leverage(  # noqa: PLR0913 - a sparse loss, and what it is compared with
    dense: LawFit, ladder: Ladder, experts: int, flops: float, losses: FloatArray, source: str
) -> Leverage:
    grid = np.geomspace(flops / 10, flops * REACH, STEPS)
    curves = best_of_ladder(dense, ladder, grid).losses
    pairs = min(curves.shape[1], losses.size) if losses.size > 1 else curves.shape[1]
    losses = np.broadcast_to(losses, pairs) if losses.size == 1 else losses[:pairs]
    ratios = np.array(
        [_flops_of(grid, curves[:, i], float(losses[i])) / flops for i in range(pairs)]
    )
    known = ratios[1:][np.isfinite(ratios[1:])]
    tails = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
    # Without most of the resamples an interval would be of those that happen to have a value.
    interval = np.percentile(known, tails) if known.size > 0.9 * (pairs - 1) > 0 else None
    return Leverage(
        experts,
        flops,
        float(ratios[0]) if np.isfinite(ratios[0]) else None,
        None if interval is None else (float(interval[0]), float(interval[1])),
        source,
    )


def _flops_of(grid: FloatArray, curve: FloatArray, loss: float) -> float:
    """Return the FLOPs at which a falling curve reaches a loss; NaN beyond its ends."""
    known = np.isfinite(curve)
    fall = np.maximum.accumulate(-curve[known])
    if not known.any() or not fall[0] <= -loss <= fall[-1]:
        return float("nan")
    return float(np.exp(np.interp(-loss, fall, np.log(grid[known]))))
