"""Models of the ladder that a law can judge, in the law's own columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from benchmarks.decisions.model_columns import model_columns, trained
from benchmarks.errors import BenchmarkError
from benchmarks.ladder.dials import Dials
from benchmarks.ladder.rungs import model_of
from benchmarks.laws.fitted_law import FittedLaw
from benchmarks.laws.law import Columns, Law
from moe.config.model import ModelConfig
from moe.cost.ledger import Ledger, ledger

EXPANSIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Width of all experts over that of the active ones; 1: a dense model."""
GRANULARITIES = (1, 2, 4, 8, 16)
CUTS = {"granularity", "hidden_granularity", "top_k", "active_experts"}
"""Columns of laws that tell how finely experts are cut."""
SHARED_PART = 0.3
"""Share of the active experts that may be shared, where a law has a term for that: Zhao et al. 2025
(arXiv 2509.23678) find 0.31."""
WIDTHS = tuple(sorted({64 * max(1, round(1.08**step)) for step in range(91)}))
"""Widths that are looked at: 64 to 65,216."""
FREE = {"parameters", "active_parameters", "tokens", "flops"}
"""Columns that grow with a model's size and its training; all others are its proportions."""


@dataclass(frozen=True)
class Proportions:
    """What candidates of different sizes share."""

    expansion: int
    granularity: int
    shared: int = 0

    @property
    def is_dense(self) -> bool:
        """Whether all of a token's layers are dense."""
        return self.expansion == 1

    def dials(self, width: int, seq_len: int) -> Dials:
        """Return the dials of one size."""
        return Dials(
            hidden_size=width,
            experts=self.expansion * self.granularity if self.expansion > 1 else 1,
            granularity=self.granularity,
            shared_experts=self.shared,
            max_seq_len=seq_len,
        )


@dataclass(frozen=True)
class Candidate:
    """A model of the ladder, and what a law reads of it."""

    proportions: Proportions
    model: ModelConfig
    costs: Ledger
    columns: Columns
    """The law's, [1] each, for one training token."""

    @cached_property
    def sizes(self) -> dict[str, float]:
        """Sizes of the model by the cost ledger, and its dials."""
        moe = self.model.moe
        return {
            "active_parameters": float(self.costs.active_parameters),
            "parameters": float(self.costs.total_parameters),
            "experts": float(moe.num_experts if moe else 1),
            "top_k": float(moe.top_k if moe else 1),
            "granularity": float(self.proportions.granularity),
        }

    def law_sizes(self, tokens: float) -> dict[str, float]:
        """Return the law's columns for so many training tokens."""
        return {name: float(column[0]) for name, column in trained(self.columns, tokens).items()}


def proportions_of(fitted: FittedLaw) -> list[Proportions]:
    """Return the proportions that a law has terms for, or that are those of its own models.

    Raises:
        BenchmarkError: The law gives no loss, or no size.
    """
    law = fitted.law
    if law.target != "loss" or not FREE - {"tokens"} & set(law.columns):
        raise BenchmarkError(
            f"law {law.name!r} does not tell which model to train: it gives {law.target} of"
            f" {', '.join(law.columns)}"
        )
    own = () if law.space is None else law.space.expansions
    expansions = own or (EXPANSIONS if knows_experts(law) else (1,))
    cuts = GRANULARITIES if CUTS & set(law.columns) else (1,)
    shares = (0.0, SHARED_PART) if "shared_ratio" in law.columns else (0.0,)
    return list(
        dict.fromkeys(
            Proportions(e, g if e > 1 else 1, round(share * g) if e > 1 else 0)
            for e in expansions
            for g in cuts
            for share in shares
        )
    )


def knows_experts(law: Law) -> bool:
    """Return whether a law tells a sparse model from a dense one."""
    both_sizes = {"parameters", "active_parameters"} <= set(law.columns)
    return both_sizes or bool(set(law.columns) - FREE - {"bits"})


@lru_cache(maxsize=8192)
def _model(proportions: Proportions, width: int, seq_len: int) -> tuple[ModelConfig, Ledger]:
    model = model_of(proportions.dials(width, seq_len))
    return model, ledger(model, seq_len)


def candidate(
    fitted: FittedLaw, proportions: Proportions, width: int, seq_len: int, bits: float = 16
) -> Candidate | None:
    """Return the model of a width; None where the law was not made for such proportions."""
    model, costs = _model(proportions, width, seq_len)
    columns = model_columns(fitted, "ladder", model, costs, bits)
    bounds = _bounds(fitted)
    for name in set(columns) - FREE:
        low, high = bounds.get(name, (-np.inf, np.inf))
        if not low - 1e-3 * abs(low) <= columns[name][0] <= high + 1e-3 * abs(high):
            return None
    return Candidate(proportions, model, costs, columns)


def sizes(
    fitted: FittedLaw, proportions: Proportions, widths: Sequence[int], seq_len: int, bits: float
) -> list[Candidate]:
    """Return the models of some widths."""
    found = (candidate(fitted, proportions, width, seq_len, bits) for width in widths)
    return [one for one in found if one is not None]


def _bounds(fitted: FittedLaw) -> dict[str, tuple[float, float]]:
    """Return the least and greatest proportions that a law was made for."""
    dials = {} if fitted.law.space is None else fitted.law.space.dials
    return {n: (min(v), max(v)) for n, v in dials.items() if v} | dict(fitted.ranges or {})
