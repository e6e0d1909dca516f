"""FLOPs that a dense model needs for a sparse one's loss, over the sparse one's."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import repeat
from typing import Any

import numpy as np

from benchmarks.laws.compare import LawFit
from benchmarks.laws.law import FloatArray
from benchmarks.laws.predict import interval
from benchmarks.study.kinds import DENSE
from benchmarks.study.ladder_curve import Ladder, best_of_ladder
from benchmarks.study.minima import Minimum

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
        _leverage(fits[DENSE], ladders[DENSE], m.experts, m.flops, repeat(m.best_loss), "minimum")
        for m in minima
        if m.experts != DENSE and m.best_loss is not None
    ]


def _leverage(  # noqa: PLR0913 - a sparse loss, and what it is compared with
    dense: LawFit, ladder: Ladder, experts: int, flops: float, losses: Iterable[float], source: str
) -> Leverage:
    grid = np.geomspace(flops / 10, flops * REACH, STEPS)
    curves = best_of_ladder(dense, ladder, grid).losses
    pairs = zip(curves.T, losses, strict=False)  # a law may have fewer resamples than another
    value, *resampled = [_flops_of(grid, curve, float(loss)) / flops for curve, loss in pairs]
    known = [ratio for ratio in resampled if np.isfinite(ratio)]
    # Without most of the resamples an interval would be of those that happen to have a value.
    ends = interval(known) if len(known) > 0.9 * len(resampled) > 0 else None
    return Leverage(
        experts,
        flops,
        value if np.isfinite(value) else None,
        None if ends is None else (ends[0], ends[1]),
        source,
    )


def _flops_of(grid: FloatArray, curve: FloatArray, loss: float) -> float:
    """Return the FLOPs at which a falling curve reaches a loss; NaN beyond its ends."""
    known = np.isfinite(curve)
    fall = np.maximum.accumulate(-curve[known])
    if not known.any() or not fall[0] <= -loss <= fall[-1]:
        return float("nan")
    return float(np.exp(np.interp(-loss, fall, np.log(grid[known]))))
