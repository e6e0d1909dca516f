"""The answer of `moe choose`: model, layout, tokens, date, loss, joules, money, emissions."""

from typing import Any

from benchmarks.decisions.batch import step_tokens
from benchmarks.decisions.decision import Decision
from benchmarks.decisions.documents import PLANNER_LEVEL, prediction
from benchmarks.decisions.experiment_file import experiment_of
from benchmarks.errors import BenchmarkError
from benchmarks.laws.step_law import BATCH_RULE, RATE_RULE
from benchmarks.planning.answer import PlanAnswer
from moe.config.experiment import Experiment

DEFAULT_LAW = "ludziejewski-2025"
"""Dense and sparse models by one form, sizes with embeddings as the ledger counts them, read in
the paper itself: of the published laws here the only one that has all three."""
QUANTITIES = ("tokens", "seconds", "gpu_hours", "joules", "money", "gco2")
LARGE_BATCH = 4.0
"""Times what the rule says from which on a batch is warned of."""


def plan_of(decision: Decision) -> PlanAnswer:
    """Return the best model's plan.

    Raises:
        BenchmarkError: It was asked without cards.
    """
    plan = decision.best.price.plan
    if plan is None:
        raise BenchmarkError("no cards were named: give --gpu and --gpus")
    return plan


def choice(decision: Decision) -> tuple[dict[str, Any], Experiment]:
    """Return the document, and the experiment that it describes."""
    plan = plan_of(decision)
    experiment = experiment_of(decision.best, plan)
    document = prediction(decision)
    document["warnings"] += batch_warnings(decision)
    planned = plan.as_json()
    quantities: dict[str, Any] = {name: _quantity(planned["run"][name]) for name in QUANTITIES} | {
        "loss": _loss(document)
    }
    return document | {
        "model": {
            **planned["model"],
            "name": experiment.name,
            "config": experiment.model_dump(mode="json", exclude_none=True)["model"],
        },
        "plan": planned["layouts"][0],
        "quantities": quantities,
        "starts": planned["run"]["starts"],
        "ends": planned["run"]["ends"],
        "rules": {"batch": BATCH_RULE, "learning_rate": RATE_RULE},
    }, experiment


def _quantity(found: dict[str, float] | None) -> dict[str, Any] | None:
    return None if found is None else found | {"level": PLANNER_LEVEL, "kind": "modelled"}


def _loss(document: dict[str, Any]) -> dict[str, Any]:
    """Return the loss with the interval of the tokens, and that of the law where it is known."""
    low, high = document["cost_interval"]
    return {
        "value": document["loss"],
        "low": low,
        "high": high,
        "level": PLANNER_LEVEL,
        "interval_of": "the tokens alone, at the law's coefficients",
        "law_interval": document["interval"],
        "law_level": document["interval_level"],
        "unit": "nats per token",
        "kind": "modelled",
    }


def batch_warnings(decision: Decision) -> list[str]:
    """Return what is odd about the batch, a sentence each."""
    plan = plan_of(decision)
    batch = plan.best.work.batch
    tokens, step = decision.best.price.tokens.value, batch.global_batch_size * batch.seq_len
    if step > LARGE_BATCH * step_tokens(tokens):
        return [
            f"a step of {step:,} tokens is larger than {BATCH_RULE} says"
            f" ({step_tokens(tokens):,.0f}): so many cards need it, and the loss may be higher"
        ]
    return []
