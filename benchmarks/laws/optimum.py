"""The sizes of least loss by a law: 6 x active parameters x tokens are given.

For each combination of the other dials the law becomes a function of one number, the size, as
tokens follow from the FLOPs; its least loss is found on a fine grid and then between its points.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.laws.law import FloatArray, Law, Space

FLOPS_PER_PARAMETER_TOKEN = 6
SIZES = np.geomspace(1e3, 1e18, 601)
REFINEMENTS = 3
Dials = Mapping[str, float]


@dataclass(frozen=True)
class Optimum:
    """Sizes of least loss."""

    sizes: dict[str, float]
    loss: float
    """Infinite where the law has no positive value at any size."""
    at_edge: bool
    """Whether it is the smallest or largest size that is looked at: there is no optimum."""
    dials: Dials


def find_optimum(
    law: Law, space: Space, values: Mapping[str, float], candidates: Sequence[Dials], flops: float
) -> Optimum:
    """Return the best sizes over all combinations of dials."""
    found = [_best_size(law, space, values, dials, flops) for dials in candidates]
    return min(found, key=lambda one: one.loss)


def _best_size(
    law: Law, space: Space, values: Mapping[str, float], dials: Dials, flops: float
) -> Optimum:
    """Return the size of least loss at given dials; tokens take the rest of the FLOPs."""
    if space.fixed_tokens is not None:
        unit = _active(space, np.ones(1), dials)[0]
        sizes = np.array([flops / (FLOPS_PER_PARAMETER_TOKEN * space.fixed_tokens * unit)])
        columns = _columns(space, sizes, dials, flops)
        return _optimum(columns, _losses(law, columns, values), 0, dials)
    sizes, edge = SIZES, False
    for refinement in range(REFINEMENTS + 1):
        columns = _columns(space, sizes, dials, flops)
        losses = _losses(law, columns, values)
        index = int(np.argmin(losses))
        if refinement == 0:
            edge = index in (0, sizes.size - 1)
        around = sizes[max(0, index - 1)], sizes[min(sizes.size - 1, index + 1)]
        if refinement < REFINEMENTS:
            sizes = np.geomspace(*around, 65)
    return _optimum(columns, losses, index, dials, at_edge=edge)


def _active(space: Space, sizes: FloatArray, dials: Dials) -> FloatArray:
    columns = {space.size: sizes, **{n: np.full(sizes.size, v) for n, v in dials.items()}}
    return np.asarray(space.active(columns), dtype=float)


def _columns(space: Space, sizes: FloatArray, dials: Dials, flops: float) -> dict[str, FloatArray]:
    active = _active(space, sizes, dials)
    return {
        space.size: sizes,
        **({} if space.size == "active_parameters" else {"active_parameters": active}),
        "tokens": flops / (FLOPS_PER_PARAMETER_TOKEN * active),
        **{name: np.full(sizes.size, value) for name, value in dials.items()},
    }


def _losses(law: Law, columns: Mapping[str, FloatArray], values: Mapping[str, float]) -> FloatArray:
    with np.errstate(all="ignore"):
        losses = np.asarray(law.predict(columns, values), dtype=float)
    return np.where(np.isfinite(losses) & (losses > 0), losses, math.inf)


def _optimum(
    columns: Mapping[str, FloatArray],
    losses: FloatArray,
    index: int,
    dials: Dials,
    *,
    at_edge: bool = False,
) -> Optimum:
    sizes = {name: float(column[index]) for name, column in columns.items()}
    return Optimum(sizes, float(losses[index]), at_edge, dials)
