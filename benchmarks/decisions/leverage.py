"""Efficiency leverage: the best sparse model beside the best dense one, by what they cost."""

from dataclasses import dataclass
from functools import partial
from math import inf, log
from typing import Any

from benchmarks.decisions.best_first import Priced, best_first
from benchmarks.decisions.candidates import Candidate
from benchmarks.decisions.decision import Decision
from benchmarks.decisions.target_loss import tokens_for_loss

SCALABLE = {"flops", "gpu_hours", "joules", "money", "gco2"}
"""Limits of which more can be had; data and memory are what they are."""
TOLERANCE = 0.02
"""Relative; a dense model must be able to be cheaper by so much to be priced."""
MOST_PRICED = 6
SERVED_SCALE = 8.0
"""Times the limits within which dense models are priced where serving takes a part of them."""


@dataclass(frozen=True)
class Leverage:
    """What experts are worth."""

    sparse: Priced
    dense: Priced
    budget_factor: float | None
    """How many times the limit the best dense model needs to reach the sparse one's loss; None: no
    amount does, or what binds is data or memory."""
    dense_at_equal_loss: Candidate | None
    """That dense model."""

    @property
    def loss_difference(self) -> float:
        """Nats by which the dense model's loss is higher within the same limits."""
        return self.dense.loss - self.sparse.loss

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        at_equal_loss = self.dense_at_equal_loss
        return {
            "loss_difference": self.loss_difference,
            "budget_factor": self.budget_factor,
            "dense_at_equal_loss": None if at_equal_loss is None else at_equal_loss.sizes,
            "limit": self.sparse.price.bound_by,
            "kind": "modelled",
        }


def leverage(decision: Decision) -> Leverage | None:
    """Return the leverage; None where the law knows no dense models, or no sparse ones."""
    sparse, dense = decision.sparse.best, decision.dense.best
    if sparse is None or dense is None:
        return None
    factor, at_equal_loss = None, None
    if sparse.price.bound_by in SCALABLE and dense.price.bound_by == sparse.price.bound_by:
        factor, at_equal_loss = _equal_loss(decision, sparse.loss, dense)
    return Leverage(sparse, dense, factor, at_equal_loss)


def _equal_loss(
    decision: Decision, loss: float, dense: Priced
) -> tuple[float | None, Candidate | None]:
    """Return the least factor on the limit at which a dense model reaches a loss, and the model."""
    fitted = decision.question.fitted
    needed = partial(tokens_for_loss, fitted, loss)

    # Within the limits themselves, serving a larger model may take more than all of them.
    scale = SERVED_SCALE if decision.question.limits.serving.tokens else 1.0
    pricer = decision.pricer if scale == 1 else decision.pricer.scaled(scale)

    def log_factor(one: Candidate, tokens: float) -> float:
        wanted = needed(one.columns)
        if wanted is None or not 0 < tokens < inf:
            return inf
        served = pricer.served_tokens(one, tokens)
        return log((wanted + served) / (tokens + served))

    candidates = [one for one in decision.shortlist if one.proportions.is_dense]
    found = best_first(candidates, pricer, log_factor, most_priced=MOST_PRICED, tolerance=TOLERANCE)
    factors = [
        (one.price.factor(wanted) * scale, one.candidate)
        for one in found.priced
        if (wanted := needed(one.candidate.columns)) is not None
        and one.price.bound_by == dense.price.bound_by
    ]
    return min(factors, key=lambda pair: pair[0], default=(None, None))
