"""The sizes of least loss by a law, at given FLOPs: 6 x active parameters x tokens.

Tokens that the trained model will serve take 2 x active parameters each of the same FLOPs (Sardana
et al. 2024, arXiv 2401.00448): what is left trains a smaller model for longer.

For each combination of the other dials the law becomes a function of one number, the size, as
tokens follow from the FLOPs; its least loss is found on a fine grid and then between its points.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.laws.law import Columns, FloatArray, Law, Space

FLOPS_PER_PARAMETER_TOKEN = 6
FLOPS_PER_SERVED = 2
"""A forward pass alone, of a token that the trained model reads or writes."""
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


@dataclass(frozen=True)
class Compute:
    """FLOPs of a model's life."""

    flops: float
    served_tokens: float = 0.0

    def training_tokens(self, active: FloatArray) -> FloatArray:
        """Return the tokens that are left for training models of some sizes; not above 0: none."""
        served = FLOPS_PER_SERVED * self.served_tokens
        return (self.flops / active - served) / FLOPS_PER_PARAMETER_TOKEN


def find_optimum(
    law: Law,
    space: Space,
    values: Mapping[str, float],
    candidates: Sequence[Dials],
    compute: Compute,
) -> Optimum:
    """Return the best sizes over all combinations of dials."""
    found = [_best_size(law, space, values, dials, compute) for dials in candidates]
    return min(found, key=lambda one: one.loss)


def _best_size(
    law: Law, space: Space, values: Mapping[str, float], dials: Dials, compute: Compute
) -> Optimum:
    """Return the size of least loss at given dials; tokens take the rest of the FLOPs."""
    if space.fixed_tokens is not None:
        unit = active_at(space, np.ones(1), dials)[0]
        life = FLOPS_PER_PARAMETER_TOKEN * space.fixed_tokens
        life += FLOPS_PER_SERVED * compute.served_tokens
        sizes = np.array([compute.flops / (life * unit)])
        columns = columns_at(space, sizes, dials, compute)
        return _optimum(columns, _losses(law, columns, values), 0, dials)
    sizes, edge = SIZES, False
    for refinement in range(REFINEMENTS + 1):
        columns = columns_at(space, sizes, dials, compute)
        losses = _losses(law, columns, values)
        index = int(np.argmin(losses))
        if refinement == 0:
            edge = index in (0, sizes.size - 1)
        around = sizes[max(0, index - 1)], sizes[min(sizes.size - 1, index + 1)]
        if refinement < REFINEMENTS:
            sizes = np.geomspace(*around, 65)
    return _optimum(columns, losses, index, dials, at_edge=edge)


def active_at(space: Space, sizes: FloatArray, dials: Dials) -> FloatArray:
    """Return the active parameters of models of sizes [S]."""
    columns = {space.size: sizes, **{n: np.full(sizes.size, v) for n, v in dials.items()}}
    return np.asarray(space.active(columns), dtype=float)


def columns_at(
    space: Space, sizes: FloatArray, dials: Dials, compute: Compute
) -> dict[str, FloatArray]:
    """Return a law's columns at sizes [S], with the tokens that the FLOPs leave."""
    active = active_at(space, sizes, dials)
    found = {
        space.size: sizes,
        **({} if space.size == "active_parameters" else {"active_parameters": active}),
        "tokens": compute.training_tokens(active),
        **{name: np.full(sizes.size, value) for name, value in dials.items()},
    }
    return found | {name: rule(found) for name, rule in space.derived.items()}


def _losses(law: Law, columns: Mapping[str, FloatArray], values: Mapping[str, float]) -> FloatArray:
    with np.errstate(all="ignore"):
        losses = np.asarray(law.predict(columns, values), dtype=float)
    trained = np.asarray(columns["tokens"]) > 0
    return np.where(np.isfinite(losses) & (losses > 0) & trained, losses, math.inf)


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


def training_flops(law: Law, columns: Columns) -> FloatArray | None:
    """Return 6 x active parameters x tokens of points [points], as the law counts both.

    `None` of a law that does not tell both from its columns.
    """
    space = law.space
    if space is None or space.size not in columns:
        return None
    tokens = columns.get("tokens", space.fixed_tokens)
    if tokens is None:
        return None
    return np.asarray(FLOPS_PER_PARAMETER_TOKEN * space.active(columns) * tokens, dtype=float)
