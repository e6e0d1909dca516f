"""Whole runs in kernel set `te` or `torch`, some begun with what others saved."""

import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from moe.checkpoint.directory import checkpoint_name
from moe.config.experiment import Experiment
from moe.config.locating import EXPERIMENT_FILE
from moe.runs.files import CHECKPOINTS
from tests.support.fault_injection import train_rank
from tests.support.layout_equivalence import make
from tests.support.transformer_engine.comparison import device
from tests.support.transformer_engine.fp8 import SPARSE, pretend_card_of
from tests.support.transformer_engine.ranks import run_te_ranks

SAVED_AT, STEPS = 2, 4
TRAIN = {
    "seq_len": 32,
    "micro_batch_size": 2,
    "global_batch_size": 4,
    "steps": STEPS,
    "warmup_steps": 1,
    "checkpoint_interval": SAVED_AT,
    "keep_checkpoints": 2,
}


class Job(NamedTuple):
    """A run to be trained to its end."""

    experiment: Experiment
    run_dir: Path
    begun: Path | None = None
    """Another run whose first checkpoint it goes on from."""


def experiment(
    store: Path,
    kernels: str,
    layout: dict[str, Any] | None = None,
    *,
    model: Any = SPARSE,
    train: dict[str, Any] | None = None,
    **precision: Any,
) -> Experiment:
    """Return a run of a few steps that saves on the way."""
    return make(
        store,
        {"device": device()} | (layout or {}),
        model=model.model_dump(),
        train=TRAIN | (train or {}),
        precision={"kernels": kernels} | precision,
    )


def train_all(jobs: list[Job], num_ranks: int = 1) -> None:
    """Train runs of one kernel set one after the other; several ranks meet for one run only."""
    run_te_ranks(num_ranks, _train, jobs)


def _train(jobs: list[Job]) -> None:
    for job in jobs:
        if (scaling := job.experiment.precision.scaling) is not None:
            pretend_card_of(scaling)
        if job.begun is not None and os.environ["RANK"] == "0":
            _begin(job.run_dir, job.begun)
        train_rank(job.experiment, job.run_dir, resume=job.begun is not None)


def _begin(run_dir: Path, begun: Path) -> None:
    """Copy a run as it was at its first checkpoint."""
    name = checkpoint_name(SAVED_AT)
    shutil.copytree(begun / CHECKPOINTS / name, run_dir / CHECKPOINTS / name)
    shutil.copy(begun / EXPERIMENT_FILE, run_dir)
