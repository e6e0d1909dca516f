"""One start of a run: acquired, built, restored and trained."""

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from moe.checkpoint.agreement import check_agreement
from moe.checkpoint.directory import read_state
from moe.checkpoint.state_format import RUN_KEYS
from moe.checkpoint.training_state import load_checkpoint
from moe.config.experiment import Experiment
from moe.runs.callbacks import Callback, Logger
from moe.runs.directory import RunDirectory
from moe.runs.record import Record
from moe.training.logs.callback_list import CallbackList, rank_context
from moe.training.logs.memory_record import MemoryMeter
from moe.training.logs.metrics_log import MetricsLog
from moe.training.logs.progress import NoProgress, TrainProgress
from moe.training.logs.run_record import open_start, record_start
from moe.training.logs.tensorboard import TensorBoardLogger
from moe.training.logs.totals import RunTotals
from moe.training.loop import TrainingLoop
from moe.training.saver import open_saver
from moe.training.startup.acquire import acquired_run
from moe.training.startup.build import build_trainer
from moe.training.startup.conditions import measure_conditions
from moe.training.trainer import Trainer
from parallel.engine.collectives import all_gather_objects
from parallel.engine.start import Engine
from parallel.engine.watchdog import Watchdog


def train(  # noqa: PLR0913 - the one entry point of a run
    experiment: Experiment,
    engine: Engine,
    run_dir: Path,
    *,
    resume: bool = False,
    from_step: int | None = None,
    until_step: int | None = None,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    progress: TrainProgress | None = None,
    build: Callable[..., Trainer] = build_trainer,
) -> Record:
    """Train an experiment in `run_dir` and return its record (rank 0; {} elsewhere).

    Args:
        experiment: What to train.
        engine: This rank of the running engine.
        run_dir: Directory of the run's files.
        resume: Continue from the newest checkpoint, where there is one.
        from_step: Continue from this step's checkpoint instead.
        until_step: Pause after this step; the run is then `stopped`, and can be resumed.
        callbacks: Meters; every rank has them in the same order.
        loggers: Show the run elsewhere, beside TensorBoard; used on rank 0 only.
        progress: Shows how training proceeds; used on rank 0 only.
        build: Builds the trainer, as `build_trainer` does; tests build one that fails.

    Raises:
        ConfigError: Bad input, a run directory that is in use or holds another run, or a damaged
            checkpoint.
        TrainingStoppedError: A signal came; the checkpoint is written.
        GuardError: A step was rejected, and the run is to end.
        StorageError: The disk is full or fails; complete checkpoints are still there.
    """
    memory = MemoryMeter(experiment, engine)
    with (
        closing(_watchdog(experiment, engine)) as watchdog,
        acquired_run(run_dir, experiment, engine, watchdog, resume, from_step) as (run, checkpoint),
        closing(
            _build(build, experiment, engine, watchdog, load_init=checkpoint is None)
        ) as trainer,
    ):
        conditions = measure_conditions(trainer)
        with watchdog.storage("loading the checkpoint"):
            totals, state = _restore(trainer, checkpoint)
        if totals.step == experiment.train.steps and _is_recorded(run):
            return {} if run is None else run.record
        starts = [] if run is None else open_start(run, experiment, totals, engine.world_size)
        saver = open_saver(trainer, run_dir, run)
        started = CallbackList(callbacks, rank_context(engine, run_dir), state.get("observers"))
        if run is not None:
            record_start(run, trainer, conditions, starts)
        loop = TrainingLoop(
            trainer=trainer,
            conditions=conditions,
            watchdog=watchdog,
            run_directory=run,
            callbacks=started,
            log=MetricsLog(
                trainer,
                conditions,
                started,
                run=run,
                loggers=[TensorBoardLogger(), *loggers],
                step=totals.step,
            ),
            memory=memory,
            saver=saver,
            progress=progress or NoProgress(),
            until_step=until_step,
        )
        return loop.run(totals)


def _watchdog(experiment: Experiment, engine: Engine) -> Watchdog:
    layout = experiment.parallel
    return Watchdog(engine.rank, layout.timeout_s, layout.storage_timeout_s)


def _build(
    build: Callable[..., Trainer],
    experiment: Experiment,
    engine: Engine,
    watchdog: Watchdog,
    *,
    load_init: bool,
) -> Trainer:
    with watchdog.storage("opening the store and building the model"):
        return build(experiment, engine, load_init=load_init, on_micro_batch=watchdog.beat)


def _is_recorded(run: RunDirectory | None) -> bool:
    """Return whether the run's record says that it finished; a collective call.

    It does not where the run was killed between its last checkpoint and its record.
    """
    return any(all_gather_objects(run is not None and run.record.get("status") == "finished"))


def _restore(trainer: Trainer, checkpoint: Path | None) -> tuple[RunTotals, dict[str, Any]]:
    """Load a checkpoint whose files have been verified; returns its totals and its state."""
    if checkpoint is None:
        return RunTotals(), {}
    # Before anything is loaded from it.
    check_agreement(checkpoint, read_state(checkpoint, needed=RUN_KEYS), trainer.experiment.train)
    state = load_checkpoint(checkpoint, trainer.chunks, trainer.optimizer, verified=True)
    trainer.load_state(state)
    return RunTotals.from_checkpoint(state), state
