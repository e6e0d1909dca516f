"""A decision as JSON: what `moe predict` prints of limits that need real models."""

from dataclasses import asdict
from typing import Any

from benchmarks.decisions.best_first import MOST_PRICED, TOLERANCE, Priced
from benchmarks.decisions.decision import Decision
from benchmarks.decisions.dense_wins import dense_wins
from benchmarks.decisions.law_uncertainty import best_sizes_intervals, loss_interval
from benchmarks.decisions.leverage import leverage
from benchmarks.decisions.shortlist import is_at_edge
from benchmarks.decisions.six_n_d import six_n_d
from benchmarks.laws.fitting.bootstrap import LEVEL
from benchmarks.laws.optimum import FLOPS_PER_PARAMETER_TOKEN
from benchmarks.laws.predict import beyond, profile
from benchmarks.planning.layout_text import layout_text

PLANNER_LEVEL = 0.8
"""Of intervals of what layouts cost."""
OTHERS_LOSS = (
    "this law is of other people's data and tokenizer: it predicts their loss, not yours; which"
    " model is better carries over as far as their setting resembles yours"
)


def prediction(decision: Decision) -> dict[str, Any]:
    """Return the best sizes, their loss and cost, and what stands beside them."""
    question, best = decision.question, decision.best
    fitted = question.fitted
    law, tokens = fitted.law, best.price.tokens.value
    outside = beyond(fitted, best.candidate.law_sizes(tokens) | {"tokens": tokens})
    found = leverage(decision)
    return {
        "asked": question.asked,
        "law": law.name,
        "origin": fitted.origin,
        "coefficients": fitted.values,
        "best": best.candidate.sizes | {"tokens": tokens},
        "law_sizes": best.candidate.law_sizes(tokens),
        "loss": best.loss,
        "interval": loss_interval(fitted, best),
        "profile_interval": profile(fitted, best.candidate.law_sizes(tokens)),
        "cost_interval": cost_interval(decision, best),
        "best_intervals": best_sizes_intervals(fitted, decision.priced),
        "interval_level": LEVEL,
        "cost": cost(decision, best),
        "six_n_d": six_n_d(decision),
        "runner_up": None if decision.runner_up is None else beside(decision, decision.runner_up),
        "dense": None if decision.dense.best is None else beside(decision, decision.dense.best),
        "leverage": None if found is None else found.as_json(),
        "dense_would_win": []
        if found is None
        else [one.as_json() for one in dense_wins(decision, found)],
        "searched": searched(decision),
        "conventions": law.conventions.as_json(),
        "extrapolated": outside,
        "warnings": warnings(decision, outside),
        "notes": list(law.notes),
    }


def cost(decision: Decision, one: Priced) -> dict[str, Any]:
    """Return what a model costs, and what it leaves of the limits."""
    question, price = decision.question, one.price
    law, tokens = question.fitted.law, price.tokens.value
    flops = FLOPS_PER_PARAMETER_TOKEN * question.active(one.candidate) * tokens
    document: dict[str, Any] = {
        "bound_by": price.bound_by,
        "tokens": asdict(price.tokens),
        "training_flops": flops,
        "convention": law.conventions.flops,
        "served_tokens": question.limits.serving.tokens,
        "served_share": price.served_tokens / (price.served_tokens + tokens),
        "serving_memory_bytes": question.limits.serving.memory_bytes(one.candidate.costs),
        "kind": "modelled",
    }
    if price.plan is None or price.run is None:
        return document
    run, layout = price.run.as_json(), price.plan.best
    names = ("seconds", "gpu_hours", "joules", "money", "gco2", "currency", "grid", "starts",
             "ends", "failures")  # fmt: skip
    cards = decision.question.cards() or {}
    return (
        document
        | {name: run[name] for name in names}
        | cards
        | {
            "layout": layout_text(layout.work),
            "global_batch_size": layout.work.batch.global_batch_size,
            "seq_len": layout.work.batch.seq_len,
            "ledger_flops": layout.flops_per_token * tokens,
            "utilisation": price.utilisation,
        }
    )


def beside(decision: Decision, one: Priced) -> dict[str, Any]:
    """Return a model that was not chosen, in short."""
    return {
        "sizes": one.candidate.sizes | {"tokens": one.price.tokens.value},
        "loss": one.loss,
        "interval": loss_interval(decision.question.fitted, one),
        "cost": cost(decision, one),
    }


def cost_interval(decision: Decision, one: Priced) -> list[float] | None:
    """Return the losses at the ends of the tokens' interval; None where cost is FLOPs alone."""
    if one.price.plan is None:
        return None
    tokens = one.price.tokens
    return [decision.question.loss(one.candidate, end) for end in (tokens.high, tokens.low)]


def searched(decision: Decision) -> dict[str, Any]:
    """Return how many models were looked at and priced, and what may have been missed."""
    parts, without_cards = (decision.sparse, decision.dense), decision.question.options is None
    return {
        "candidates": sum(part.candidates for part in parts),
        "bounded": 0 if without_cards else sum(part.bounded for part in parts),
        "planned": 0 if without_cards else sum(part.searches for part in parts),
        "gain_left": max(0.0, decision.best.loss - min(part.best_left for part in parts)),
        "rule": "models rank by the law at what no layout undercuts: first the card's rate, then"
        " the planner's bound of all layouts; those that may still win are planned",
    }


def warnings(decision: Decision, outside: list[str]) -> list[str]:
    """Return what to beware of, a sentence each."""
    found = [f"{name} is beyond the fitted points" for name in outside]
    if decision.question.fitted.resamples is None:
        found.append(OTHERS_LOSS)
    if (left := searched(decision)["gain_left"]) > TOLERANCE:
        found.append(
            f"the search ended after {MOST_PRICED} plans of a kind: a model that was not planned"
            f" could be better by up to {left:.3f} nats"
        )
    if is_at_edge(decision.best.candidate):
        found.append("the best size is the smallest or the largest of the ladder")
    return found
