"""Runs of both kernel sets, which start from equal weights."""

from dataclasses import dataclass

from moe.config.experiment import Experiment


@dataclass(frozen=True)
class Run:
    """What one run measured, and what updated its weights."""

    losses: list[float]
    grad_norms: list[float]
    optimizer: str


def train(experiment: Experiment) -> Run:
    """Train.

    Only one kernel set in a process: `torch` replaces megatron-core's optimizer.
    """
    from moe.training.startup.build import build_trainer
    from moe.training.startup.execution_report import execution_report, verify_execution
    from moe.training.step import train_step
    from parallel.engine.start import start_engine, stop_engine

    engine = start_engine(experiment.parallel, seed=experiment.train.seed)
    trainer = build_trainer(experiment, engine)
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
