"""The least loss at given FLOPs over the models of the ladder, by a law."""

from dataclasses import dataclass, replace

import numpy as np

from benchmarks.laws.compare import LawFit
from benchmarks.laws.curves import coefficient_rows, predicted
from benchmarks.laws.law import FloatArray
from benchmarks.study.sweeps import expanded
from benchmarks.sweeps.design import Design

WIDEST = 32
"""Widths up to so many times the narrowest that the study trains."""


@dataclass(frozen=True)
class Ladder:
    """The models of one number of experts, ascending."""

    active_parameters: FloatArray
    """[M]."""
    flops_per_token: FloatArray
    """[M], training, by the cost ledger: what iso-FLOP runs hold, unlike 6 N D."""


@dataclass(frozen=True)
class Best:
    """Least losses; B = 1 + resamples, the law's own first."""

    losses: FloatArray
    """[C, B]."""
    active_parameters: FloatArray
    """[C, B], of the models that have them."""


def ladder_of(design: Design, experts: int) -> Ladder:
    """Return the models that a design's other axes allow, of any width of its ladder."""
    widths = design.axes["hidden_size"]
    assert isinstance(widths, tuple)
    model = design.base.model
    step = model.hidden_size // model.num_heads
    every = tuple(range(step, WIDEST * min(widths) + 1, step))
    axes = design.axes | {"hidden_size": every, "experts": (experts,), "seeds": (0,)}
    held = design.file.model_copy(update={"hold": (max(design.file.hold) * 1000,)})
    points = [one.point for one in expanded(replace(design, axes=axes, file=held)).points]
    sizes = [point.as_json()["active_parameters"] for point in points]
    per_token = [point.flops / point.tokens for point in points]
    return Ladder(np.array(sizes, dtype=float), np.array(per_token))


def best_of_ladder(one: LawFit, ladder: Ladder, flops: FloatArray) -> Best:
    """Return the least loss at each number of FLOPs [C], by the law and its resamples."""
    values = coefficient_rows(one.fitted)
    losses, sizes = [], []
    for budget in flops:
        columns = {
            "active_parameters": ladder.active_parameters,
            "tokens": budget / ladder.flops_per_token,
        }
        found = predicted(one.fit.law, columns, values)
        index = np.where(np.isnan(found), np.inf, found).argmin(axis=1)
        losses.append(found[np.arange(len(found)), index])
        sizes.append(ladder.active_parameters[index])
    return Best(np.array(losses), np.array(sizes))
