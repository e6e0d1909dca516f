"""The chosen model as a complete experiment."""

from math import gcd
from pathlib import Path
from typing import Any

from benchmarks.decisions.best_first import Priced
from benchmarks.errors import BenchmarkError
from benchmarks.laws.step_law import RATE_RULE, step_law_learning_rate
from benchmarks.planning.answer import PlanAnswer
from benchmarks.planning.job import PlanJob
from data.storage.atomic import check_writable, write_text
from moe.config.experiment import Experiment, make_experiment
from moe.config.train import MOST_STEPS

WARMUP_SHARE = 0.01
"""Of all steps; an assumption."""
DECAYED_TO = 0.1
"""Of the peak learning rate, at the end (Hoffmann et al. 2022, arXiv 2203.15556)."""
HEADER = """\
# Written by `moe choose`, planned for {cards}. Before `moe train` or `moe slurm submit`:
# build the token store (`moe data build`) with a tokenizer of at most model.vocab_size entries, and
# name it in data.store. Kernel set `te` needs Transformer Engine (docs/install.md).
# Learning rate: {rule}; measured for none of your data.
"""


def experiment_of(one: Priced, plan: PlanAnswer) -> Experiment:
    """Return the experiment that trains a model as it was planned; the token store is to be built.

    Raises:
        BenchmarkError: The run has too many steps.
        ConfigError: A rule is broken; names the key.
    """
    job, work = plan.job, plan.best.work
    batch, tokens = work.batch, one.price.tokens.value
    steps = int(tokens // (batch.global_batch_size * batch.seq_len))
    if steps > MOST_STEPS:
        raise BenchmarkError(
            f"the run of the chosen model has {steps:.3g} steps, and there are at most"
            f" {MOST_STEPS:.3g}: lower the budget, or say how many --tokens there are"
        )
    rate = learning_rate(one, tokens)
    values: dict[str, Any] = {
        "name": "chosen",
        "model": one.candidate.model.model_dump(mode="json", exclude_none=True),
        "data": {"store": "store"},
        "parallel": work.layout.model_dump(mode="json", exclude_none=True),
        "precision": job.precision.model_dump(mode="json", exclude_none=True),
        "energy": job.energy.model_dump(mode="json", exclude_unset=True)
        | {"pue": job.site.pue.value},
        "slurm": _nodes(job),
        "train": {
            "steps": steps,
            "seq_len": batch.seq_len,
            "micro_batch_size": batch.micro_batch_size,
            "global_batch_size": batch.global_batch_size,
            "learning_rate": rate,
            "min_learning_rate": DECAYED_TO * rate,
            "warmup_steps": int(WARMUP_SHARE * steps),
            "checkpoint_interval": _checkpoint_interval(plan, steps),
        },
    }
    return make_experiment(values, "the chosen experiment")


def check_destination(path: Path) -> None:
    """Refuse early a file that cannot be written.

    Raises:
        BenchmarkError: Says why.
    """
    try:
        check_writable(path)
    except OSError as error:
        raise BenchmarkError(f"--write {path}: {error.strerror or error}") from None


def write_experiment(path: Path, experiment: Experiment, cards: str) -> None:
    """Write an experiment in one step; `cards` it was planned for, in words.

    Raises:
        BenchmarkError: The file cannot be written.
    """
    try:
        write_text(path, HEADER.format(rule=RATE_RULE, cards=cards) + experiment.to_toml())
    except OSError as error:
        raise BenchmarkError(f"--write {path}: {error.strerror or error}") from None


def learning_rate(one: Priced, tokens: float) -> float:
    """Return a peak learning rate by the rule above, to three digits."""
    costs = one.candidate.costs
    size = max(1, costs.total_parameters - costs.embedding_parameters)
    return float(f"{step_law_learning_rate(size, tokens):.3g}")


def _nodes(job: PlanJob) -> dict[str, int]:
    """Return what a cluster is asked for: as many cards, on nodes as the card's file knows them."""
    if job.card.architecture == "cpu":
        return {"processes_per_node": job.num_gpus}
    if job.card.power is None:
        return {}
    per_node = gcd(job.num_gpus, job.card.power.gpus_per_node)
    return {"nodes": job.num_gpus // per_node, "gpus_per_node": per_node}


def _checkpoint_interval(plan: PlanAnswer, steps: int) -> int:
    """Return the steps between checkpoints that cost least (`planning/failures.py`)."""
    assert plan.run is not None
    seconds = plan.run.reliability["checkpoint_interval_s"]
    return max(1, min(steps, int(seconds / plan.best.step_seconds)))
