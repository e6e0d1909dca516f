"""Exclusive access to a run: rank 0 acquires the directory, and every rank learns the outcome."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist

from moe.checkpoint.directory import checkpoint_to_resume, set_aside_after
from moe.config.experiment import Experiment
from moe.errors import ConfigError, StorageError, TrainingStoppedError, remedy_of
from moe.runs.directory import RunDirectory
from moe.runs.record import utc_now
from parallel.engine.collectives import new_storage_group
from parallel.engine.start import Engine
from parallel.engine.watchdog import Watchdog


@contextmanager
def acquired_run(  # noqa: PLR0913 - who holds it, and how it goes on
    run_dir: Path,
    experiment: Experiment,
    engine: Engine,
    watchdog: Watchdog,
    resume: bool,
    from_step: int | None,
) -> Iterator[tuple[RunDirectory | None, Path | None]]:
    """Hold a run; yields its directory (rank 0; None elsewhere) and the checkpoint to resume.

    A run that ends with an error is recorded as `stopped` or `failed`.

    Raises:
        ConfigError: It is in use or holds another run, or the checkpoint is damaged.
        StorageError: It cannot be read or written.
    """
    with watchdog.storage("verifying the checkpoint"):
        run, checkpoint = acquire_run(run_dir, experiment, engine, resume, from_step)
    try:
        yield run, checkpoint
    except BaseException as error:
        if run is not None:
            _record_end(run, error)
        if isinstance(error, OSError):
            raise StorageError(
                f"{error.filename or f'run directory {run_dir}'}: {error.strerror or error}:"
                f" {remedy_of(error)}, then continue with --resume from the newest complete"
                " checkpoint"
            ) from error
        raise
    finally:
        if run is not None:
            run.release()


def acquire_run(
    run_dir: Path, experiment: Experiment, engine: Engine, resume: bool, from_step: int | None
) -> tuple[RunDirectory | None, Path | None]:
    """Lock the directory on rank 0 and find the checkpoint; collective.

    A refusal on rank 0 is raised on every rank.

    Raises:
        ConfigError: It is in use or holds another run, or the checkpoint is damaged.
        StorageError: It cannot be read or written.
    """
    run: RunDirectory | None = None
    outcome: list[Any] = [None, None]  # refusal, checkpoint
    if engine.is_main:
        try:
            run = RunDirectory(run_dir, experiment, resume=resume or from_step is not None)
            outcome[1] = checkpoint_to_resume(run.checkpoints, from_step)
            if from_step is not None:
                set_aside_after(run.checkpoints, from_step)
        except (ConfigError, OSError) as error:
            outcome[0] = _refusal(run_dir, error)
            if run is not None:
                run.release()
    if engine.world_size > 1:
        group = new_storage_group(experiment.parallel.storage_timeout_s)
        dist.broadcast_object_list(outcome, group=group)
        dist.destroy_process_group(group)
    refusal, checkpoint = outcome
    if refusal is not None:
        raise refusal
    return run, checkpoint


def _refusal(run_dir: Path, error: ConfigError | OSError) -> Exception:
    if isinstance(error, ConfigError):
        return ConfigError(str(error))
    return StorageError(
        f"{error.filename or run_dir}: {error.strerror or error}: make room or make it"
        " writable, or choose another with --run-dir"
    )


def _record_end(run: RunDirectory, ended_by: BaseException) -> None:
    """Record how the run ended, and of what it failed, where storage still allows it."""
    ended: dict[str, Any] = {"status": "stopped"}
    if not isinstance(ended_by, TrainingStoppedError):
        # One line: reports show it.
        reason = " ".join(str(ended_by).split()) or type(ended_by).__name__
        ended = {"status": "failed", "failure": reason}
    try:
        run.update({**ended, "finished_at": utc_now()})
    except OSError as error:
        print(f"moe: {run.path}: its record could not be written: {error}", file=sys.stderr)
