"""Runs of both kernel sets that start from equal weights."""

from dataclasses import dataclass
from typing import Any

from moe.config.experiment import Experiment


@dataclass(frozen=True)
class Run:
    """What one run measured, and what updated its weights."""

    losses: list[float]
    grad_norms: list[float]
    optimizer: str


def train(experiment: Experiment, *, as_torch: bool = False) -> Run:
    """Train; with `as_torch` from the weights that kernel set `torch` starts from.

    Only one kernel set in a process: `torch` replaces megatron-core's optimizer.
    """
    from moe.training.startup.build import build_trainer
    from moe.training.startup.execution_report import execution_report, verify_execution
    from moe.training.step import train_step
    from parallel.engine.start import start_engine, stop_engine

    engine = start_engine(experiment.parallel, seed=experiment.train.seed)
    trainer = build_trainer(experiment, engine)
    if as_torch:
        _start_as_torch(trainer)
    report = execution_report(trainer)
    verify_execution(experiment, report)
    steps = [train_step(trainer, index) for index in range(experiment.train.steps)]
    trainer.close()
    stop_engine()
    return Run(
        losses=[step.loss for step in steps],
        grad_norms=[step.grad_norm for step in steps],
        optimizer=report["optimizer"],
    )


def train_as_torch(experiment: Experiment) -> Run:
    """Train in `te` from the weights of `torch`."""
    return train(experiment, as_torch=True)


def _start_as_torch(trainer: Any) -> None:
    """Give a trainer in `te` the first weights of kernel set `torch`, whose names differ."""
    from moe.model.build import build_model
    from parallel.precision.recipes import Precision
    from tests.support.transformer_engine.weights import copy_weights

    experiment = trainer.experiment
    precision = Precision(kernels="torch", dtype=experiment.precision.dtype)
    seed = experiment.train.seed
    [source] = build_model(experiment.model, experiment.parallel, precision, seed=seed)
    [chunk] = trainer.chunks
    copy_weights(source, chunk.module)
    trainer.optimizer.reload_model_params()
