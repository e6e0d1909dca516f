"""What would make a dense model win: the budget, the memory, the slowness from which it does.

Models that were not priced are taken to reach the share of the cards' rate that the priced one
nearest to them reached.
"""

from dataclasses import dataclass
from math import inf, log
from typing import Any

import numpy as np

from benchmarks.decisions.best_first import Priced
from benchmarks.decisions.candidates import WIDTHS, Candidate, Proportions, sizes
from benchmarks.decisions.decision import Decision
from benchmarks.decisions.leverage import SCALABLE, Leverage
from benchmarks.decisions.limits import UNITS
from benchmarks.decisions.pricing import Pricer
from benchmarks.decisions.target_loss import tokens_for_loss
from benchmarks.planning.limits import gibibytes
from parallel.measurement.number_text import plain_number, significant

FACTORS = np.geomspace(1 / 30, 30, 35)
"""Of the budget that are looked at: over these the shortlist holds the best sizes."""


@dataclass(frozen=True)
class Threshold:
    """Where on a dial the dense model begins to win."""

    dial: str
    value: float | None
    """None: nowhere that was looked at."""
    text: str

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"dial": self.dial, "value": self.value, "text": self.text, "kind": "modelled"}


def dense_wins(decision: Decision, found: Leverage) -> list[Threshold]:
    """Return from where on a dense model would be the best one, by dial.

    Empty where the law knows but one number of tokens: nothing can be traded for them.
    """
    space = decision.question.fitted.law.space
    if space is not None and space.fixed_tokens is not None:
        return []
    slowness = _slowness(decision, found)
    thresholds = [_slower_step(slowness), _slower_exchange(found, slowness)]
    if found.sparse.price.bound_by in SCALABLE:
        thresholds.append(_budget(decision, found))
    thresholds.append(_memory(decision))
    return [one for one in thresholds if one is not None]


def _slowness(decision: Decision, found: Leverage) -> float | None:
    """Return how many times as much a token of the sparse model may cost until the dense one wins.

    Below 1: the dense model wins already.
    """
    one = found.sparse
    needed = tokens_for_loss(decision.question.fitted, found.dense.loss, one.candidate.columns)
    return None if needed is None else 1 / one.price.factor(needed)


def _slower_step(slowness: float | None) -> Threshold:
    if slowness is None:
        text = "the dense model wins however cheap a token of the sparse one is"
    elif slowness >= 1:
        text = (
            f"dense wins if a token of the sparse model costs {significant(slowness)} times as much"
        )
    else:
        text = (
            "dense wins; sparse would if a token of the sparse model cost"
            f" {significant(slowness)} times as much"
        )
    return Threshold("cost_of_sparse_token", slowness, text)


def _slower_exchange(found: Leverage, slowness: float | None) -> Threshold | None:
    """Return how many times as long the experts' exchange may take; None where there is none."""
    plan = found.sparse.price.plan
    if plan is None or slowness is None or slowness < 1:
        return None
    exchange = plan.best.terms.get("expert_exchange", 0.0)
    if exchange <= 0:
        return None
    share = exchange / plan.best.step_seconds
    factor = 1 + (slowness - 1) / share
    return Threshold(
        "expert_exchange",
        factor,
        f"dense wins if the experts' exchange, {share:.0%} of the step, takes"
        f" {significant(factor)} times as long in this layout",
    )


class _Estimate:
    """Losses of models that were not priced."""

    def __init__(self, decision: Decision) -> None:
        self._decision = decision
        self._reached: dict[int, float] = {}
        """By the identity of candidates, which the shortlist keeps."""

    def best(self, candidates: list[Candidate], factor: float = 1.0) -> float:
        """Return the least loss of some models at so many times the budget."""
        pricer = self._decision.pricer.scaled(factor)
        return min((self._loss(pricer, one) for one in candidates), default=inf)

    def loss(self, one: Candidate) -> float:
        """Return a model's loss within the limits."""
        return self._loss(self._decision.pricer, one)

    def _loss(self, pricer: Pricer, one: Candidate) -> float:
        if id(one) not in self._reached:
            self._reached[id(one)] = self._utilisation(one)
        tokens = pricer.optimistic_tokens(one, self._reached[id(one)])
        return self._decision.question.loss(one, tokens)

    def _utilisation(self, one: Candidate) -> float:
        """Return what the priced model nearest to one reached: of its kind, expansion and size."""
        outcome = self._decision.dense if one.proportions.is_dense else self._decision.sparse

        def distance(other: Priced) -> tuple[float, float]:
            mine, theirs = one.proportions, other.candidate.proportions
            ratio = one.costs.active_parameters / other.candidate.costs.active_parameters
            return abs(log(mine.expansion / theirs.expansion)), abs(log(ratio))

        return min(outcome.priced, key=distance).price.utilisation or 1.0


def _by_kind(decision: Decision) -> tuple[list[Candidate], list[Candidate]]:
    dense = [one for one in decision.shortlist if one.proportions.is_dense]
    return dense, [one for one in decision.shortlist if not one.proportions.is_dense]


def _smaller_too(decision: Decision) -> list[list[Candidate]]:
    """Return dense and sparse models down to the smallest, of the shortlist's proportions."""
    question = decision.question
    kinds: tuple[list[Candidate], list[Candidate]] = [], []
    largest: dict[Proportions, int] = {}
    for one in decision.shortlist:
        width = one.model.hidden_size
        largest[one.proportions] = max(width, largest.get(one.proportions, 0))
    for proportions, most in largest.items():
        widths = [width for width in WIDTHS[::2] if width <= most]
        found = sizes(question.fitted, proportions, widths, question.seq_len, question.bits)
        kinds[not proportions.is_dense].extend(one for one in found if question.fits(one))
    return list(kinds)


def _budget(decision: Decision, found: Leverage) -> Threshold:
    """Return the budget below which dense wins, or above which."""
    estimate, (dense, sparse) = _Estimate(decision), _by_kind(decision)
    losses = np.array([[estimate.best(kind, f) for kind in (dense, sparse)] for f in FACTORS])
    enough = np.isfinite(losses).any(axis=1)  # smaller budgets train nothing
    factors, losses = FACTORS[enough], losses[enough]
    name = found.sparse.price.bound_by
    limit = float(getattr(decision.question.limits, name))
    wins = losses[:, 0] < losses[:, 1]
    low, high = (plain_number(factors[end] * limit, 3) for end in (0, -1))
    unit = UNITS[name]
    if wins.all() or not wins.any():
        kind = "dense wins" if wins.all() else "sparse wins"
        return Threshold(name, None, f"{kind} at every budget from {low} to {high} {unit}")
    crossings = np.flatnonzero(wins[1:] != wins[:-1])
    nearest = int(min(crossings, key=lambda i: abs(log(factors[i]))))
    value = float(np.sqrt(factors[nearest] * factors[nearest + 1]) * limit)
    side = "below" if wins[nearest] else "above"
    return Threshold(name, value, f"dense wins {side} about {plain_number(value, 3)} {unit}")


def _memory(decision: Decision) -> Threshold | None:
    """Return the memory of a served model below which the best one is dense."""
    serving, estimate = decision.question.limits.serving, _Estimate(decision)
    kinds = [
        sorted((serving.memory_bytes(one.costs), estimate.loss(one)) for one in candidates)
        for candidates in _smaller_too(decision)
    ]
    least = [np.minimum.accumulate([loss for _, loss in kind]) for kind in kinds]
    sizes = [[size for size, _ in kind] for kind in kinds]

    def best(kind: int, memory: float) -> float:
        count = int(np.searchsorted(sizes[kind], memory, side="right"))
        return float(least[kind][count - 1]) if count else inf

    steps = sorted({*sizes[0], *sizes[1]})
    won = [memory for memory in steps if best(0, memory) < best(1, memory) < inf]
    where = (
        "of the same budget; "
        f"weights of {serving.weight_bits} bits and a KV cache of {serving.batch:,} x"
        f" {serving.context:,} tokens"
    )
    if not won:
        return Threshold("memory_bytes", None, f"sparse wins at every memory ({where})")
    beyond = next((memory for memory in steps if memory > won[-1]), None)
    if beyond is None:
        return Threshold(
            "memory_bytes", None, f"dense wins at every memory that was looked at ({where})"
        )
    return Threshold(
        "memory_bytes",
        beyond,
        f"dense wins below {gibibytes(beyond)} of memory to serve in ({where})",
    )
