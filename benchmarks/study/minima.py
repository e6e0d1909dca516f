"""The least loss at given FLOPs from the runs alone: a parabola in ln N.

Approach 2 of Hoffmann et al. 2022 (arXiv 2203.15556).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.laws.points import Points


@dataclass(frozen=True)
class Minimum:
    """The runs of one number of experts at one number of FLOPs, and their least loss."""

    experts: int
    flops: float
    active_parameters: tuple[float, ...]
    """Of the sizes that ran, ascending."""
    losses: tuple[float, ...]
    """Means over seeds."""
    best_active_parameters: float | None
    best_loss: float | None
    """Of the parabola; `None` where the smallest or the largest size was best."""

    def as_json(self) -> dict[str, Any]:
        """Return all of it."""
        return asdict(self)


def iso_flop_minima(points: Points, budgets: Sequence[float]) -> list[Minimum]:
    """Return the least loss of each number of experts at each budget with three sizes or more."""
    columns, found = points.columns, []
    for experts in np.unique(columns["experts"]):
        for budget in budgets:
            near = abs(columns["flops"] / budget - 1) < 0.05
            index = near & (columns["experts"] == experts)
            sizes = np.unique(columns["active_parameters"][index])
            if sizes.size >= 3:
                means = [
                    float(columns["loss"][index & (columns["active_parameters"] == n)].mean())
                    for n in sizes
                ]
                found.append(_minimum(int(experts), budget, list(map(float, sizes)), means))
    return found


def _minimum(experts: int, flops: float, sizes: list[float], means: list[float]) -> Minimum:
    """Return the lowest point of the parabola through the best size and its neighbours."""
    best = int(np.argmin(means))
    at, loss = None, None
    if 0 < best < len(sizes) - 1:
        near = slice(best - 1, best + 2)
        square, slope, level = np.polyfit(np.log(sizes[near]), means[near], 2)
        middle = -slope / (2 * square)
        at, loss = float(np.exp(middle)), float(level + slope * middle / 2)
    return Minimum(experts, flops, tuple(sizes), tuple(means), at, loss)
