"""What 6 N D alone would have chosen for as many FLOPs, and what that would really reach."""

from typing import Any

from benchmarks.decisions.decision import Decision
from benchmarks.decisions.limits import Limits
from benchmarks.decisions.pricing import FlopsPricer
from benchmarks.laws.optimum import FLOPS_PER_PARAMETER_TOKEN, FLOPS_PER_SERVED


def six_n_d(decision: Decision) -> dict[str, Any] | None:
    """Return the choice by 6 N D at the FLOPs of the best model's life; None without cards.

    It is of the same models and data, as if every model reached the same share of the cards' rate.
    """
    question, best = decision.question, decision.best
    if question.options is None:
        return None
    served = question.limits.serving.tokens
    life = FLOPS_PER_PARAMETER_TOKEN * best.price.tokens.value + FLOPS_PER_SERVED * served
    flops = life * question.active(best.candidate)
    space = question.fitted.law.space
    fixed = None if space is None else space.fixed_tokens
    limits = Limits(flops=flops, tokens=question.limits.tokens, serving=question.limits.serving)
    by_flops = FlopsPricer(limits, question.active, fixed)

    def tokens_of(number: int) -> float:
        return by_flops.optimistic_tokens(decision.shortlist[number], 1.0)

    numbers = range(len(decision.shortlist))
    losses = [question.loss(decision.shortlist[i], tokens_of(i)) for i in numbers]
    number = min(numbers, key=lambda i: losses[i])
    chosen = decision.shortlist[number]
    price = decision.pricer.price(chosen)
    return {
        "flops": flops,
        "best": chosen.sizes | {"tokens": tokens_of(number)},
        "loss": losses[number],
        "real_tokens": None if price is None else price.tokens.value,
        "real_loss": None if price is None else question.loss(chosen, price.tokens.value),
        "kind": "modelled",
    }
