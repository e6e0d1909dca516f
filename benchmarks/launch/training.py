"""Measured training: every run has its meters, on one process, several, or a cluster."""

import ctypes
import math
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.energy.callback import EnergyCallback
from benchmarks.energy.preflight import check_energy
from benchmarks.launch.loggers import open_loggers
from benchmarks.launch.progress_bar import TrainingProgress
from moe.config.experiment import Experiment, load_experiment
from moe.errors import ConfigError, RankError, TrainingStoppedError
from moe.runs.record import read_record_if_any
from moe.training.startup.memory import Starter
from moe.training.startup.preflight import check_before_start
from parallel.engine.launch import is_rank_of_a_group, launch_ranks
from parallel.layout.layout import Layout

RUNS = Path("runs")


def run_directory(experiment: Experiment, run_dir: Path | None) -> Path:
    """Return the directory of a run: as given, or `runs/<name>-<hash>`."""
    return run_dir or RUNS / f"{experiment.name}-{experiment.content_hash}"


def run_training(  # noqa: PLR0913 - the command's options
    file: Path,
    overrides: Sequence[str],
    run_dir: Path,
    *,
    resume: bool = False,
    from_step: int | None = None,
    nproc: int = 1,
    max_restarts: int = 0,
    progress: TrainingProgress | None = None,
) -> dict[str, Any]:
    """Train an experiment file in this process, in new ones, or as one rank of a group.

    Args:
        file: The experiment.
        overrides: `a.b=value`, as of `--set`.
        run_dir: Where the run lies.
        resume: Go on from the newest checkpoint.
        from_step: Go on from this step's checkpoint.
        nproc: New processes on this machine.
        max_restarts: Times that they are started again after one failed; they resume.
        progress: Shows what happens.

    Returns:
        The run's record ({} on other ranks than 0).
    """
    experiment = load_experiment(file, overrides)
    if is_rank_of_a_group() or (nproc == 1 and not max_restarts):
        return train_rank(
            experiment, run_dir, resume=resume, from_step=from_step, progress=progress
        )
    check_before_start(experiment, nproc, "launcher")
    check_energy(experiment.energy)
    step = "" if from_step is None else str(from_step)
    paths = [str(file), str(run_dir)]
    arguments = ["-m", "benchmarks.launch.training", *paths, str(int(resume)), step]
    layout = experiment.parallel
    last_save_s = math.ceil(layout.timeout_s + layout.storage_timeout_s)
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(last_save_s))
    _train_processes([*arguments, *overrides], run_dir, nproc, max_restarts)
    return read_record_if_any(run_dir)


def train_rank(
    experiment: Experiment,
    run_dir: Path,
    *,
    resume: bool = False,
    from_step: int | None = None,
    until_step: int | None = None,
    progress: TrainingProgress | None = None,
    memory_is_checked: bool = False,
) -> dict[str, Any]:
    """Train as one rank of the process group that the environment names (alone without one).

    A rank that torchrun started again resumes by itself, from the newest checkpoint. The run is
    paused after `until_step`, if given, and can be resumed. `memory_is_checked` says that this
    process trained an earlier part, and need not warn again.
    Returns the run's record on rank 0, {} elsewhere.
    """
    from parallel.engine.imports import import_engine
    from parallel.engine.start import restart_count, start_engine, stop_engine

    starter: Starter | None = None if memory_is_checked else "rank"
    if restart_count():
        resume, from_step = True, None
        _refuse_to_restart_what_was_stopped(run_dir)
        # It has run, and those that failed may not have freed their memory yet.
        starter = None
    check_before_start(experiment, int(os.environ.get("WORLD_SIZE", "1")), starter)
    meter = EnergyCallback(experiment.energy)
    loggers = open_loggers(experiment)
    import_engine()
    from moe.training.train import train

    engine = start_engine(experiment.parallel, seed=experiment.train.seed)
    watcher = progress if engine.is_main else None
    try:
        return train(
            experiment,
            engine,
            run_dir,
            resume=resume,
            from_step=from_step,
            until_step=until_step,
            callbacks=[meter],
            loggers=loggers,
            progress=watcher,
        )
    finally:
        if watcher is not None:
            watcher.end()
        stop_engine()


def replay_step(experiment: Experiment, run_dir: Path, step: int) -> dict[str, Any]:
    """Train a step that the guard rejected once more, from its dump, in this process.

    Dumps are read under any layout, so one process serves (as one rank of a group: that group).
    """
    from parallel.engine.imports import import_engine
    from parallel.engine.start import start_engine, stop_engine

    if not is_rank_of_a_group():
        alone = Layout(device=experiment.parallel.device)
        experiment = experiment.model_copy(update={"parallel": alone})
    import_engine()
    from moe.training.replay import replay

    engine = start_engine(experiment.parallel, seed=experiment.train.seed)
    try:
        return replay(experiment, engine, run_dir, step)
    finally:
        stop_engine()


def _refuse_to_restart_what_was_stopped(run_dir: Path) -> None:
    """End a restart of a run that ended because a signal asked it to."""
    if read_record_if_any(run_dir).get("status") == "stopped":
        raise _stopped(run_dir)


def _stopped(run_dir: Path) -> TrainingStoppedError:
    """Return how the run ended, as far as its record shows."""
    record = read_record_if_any(run_dir)
    if record.get("status") == "stopped":
        return TrainingStoppedError.after(record.get("steps", 0))
    return TrainingStoppedError("stopped by a signal: continue with --resume")


def _train_processes(
    arguments: Sequence[str], run_dir: Path, nproc: int, max_restarts: int
) -> None:
    """Train with `nproc` processes of this machine under torchrun.

    Raises:
        TrainingStoppedError: A signal stopped the run after its checkpoint.
        SystemExit: A rank refused its input and has said why.
        RankError: A rank failed or was killed, more often than it may be started again.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        launch_ranks(arguments, nproc, max_restarts)
    except SignalException:
        raise _stopped(run_dir) from None
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        if TrainingStoppedError.exit_code in codes.values():
            raise _stopped(run_dir) from None
        if ConfigError.exit_code in codes.values():
            raise SystemExit(ConfigError.exit_code) from None  # the rank has said why
        rank, failure = error.get_first_failure()
        raise RankError(
            f"rank {rank} of {nproc} {_how_it_ended(failure.exitcode)}: continue with --resume"
            " from the newest complete checkpoint"
        ) from None


def _how_it_ended(exit_code: int) -> str:
    if exit_code < 0:
        return f"was killed by {signal.Signals(-exit_code).name}"
    return f"failed with exit code {exit_code}"


def main() -> None:
    """Entry point of one training rank: EXPERIMENT RUN_DIR RESUME STEP [OVERRIDE...]."""
    file, run_dir, resume, step, *overrides = sys.argv[1:]
    _end_with_parent()
    try:
        train_rank(
            load_experiment(Path(file), overrides),
            Path(run_dir),
            resume=resume == "1",
            from_step=int(step) if step else None,
            progress=TrainingProgress(),
        )
    except Exception as error:
        code = getattr(error, "exit_code", None)
        if code is None:
            raise
        # How a stop ended is for the launcher to say.
        if os.environ.get("RANK", "0") == "0" and not isinstance(error, TrainingStoppedError):
            print(f"moe: {error}", file=sys.stderr)
        sys.exit(code)


def _end_with_parent() -> None:
    """Have this rank signalled when its launcher dies (prctl PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


if __name__ == "__main__":
    main()
