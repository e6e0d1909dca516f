"""Measured training: every run has its meters, on one process, several, or a cluster."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.energy import EnergyObserver
from benchmarks.progress import TrainingProgress
from moe.config.experiment import Experiment, load_experiment
from moe.errors import ConfigError, StoppedError
from moe.preflight import check_before_start

RUNS = Path("runs")


def run_directory(experiment: Experiment, run_dir: Path | None) -> Path:
    """Return where a run lies: as given, or `runs/<name>-<hash>`."""
    return run_dir or RUNS / f"{experiment.name}-{experiment.content_hash}"


def is_rank_of_a_group() -> bool:
    """Whether torchrun, srun or the like started this process as one rank of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def run_training(  # noqa: PLR0913 - the command's options
    file: Path,
    overrides: Sequence[str],
    run_dir: Path,
    *,
    resume: bool = False,
    nproc: int = 1,
    progress: TrainingProgress | None = None,
) -> dict[str, Any]:
    """Train an experiment file in this process, in `nproc` new ones, or as one rank of a group.

    Returns the run's record ({} on other ranks than 0).
    """
    experiment = load_experiment(file, overrides)
    if is_rank_of_a_group() or nproc == 1:
        return train_rank(experiment, run_dir, resume=resume, progress=progress)
    check_before_start(experiment, nproc)
    _train_processes(file, overrides, run_dir, resume=resume, nproc=nproc)
    record: dict[str, Any] = json.loads((run_dir / "record.json").read_text())
    return record


def train_rank(
    experiment: Experiment,
    run_dir: Path,
    *,
    resume: bool = False,
    progress: TrainingProgress | None = None,
) -> dict[str, Any]:
    """Train as one rank of the process group that the environment names (alone without one).

    Returns the run's record on rank 0, {} elsewhere.
    """
    from parallel.engine import quieten_engine, start_engine, stop_engine

    check_before_start(experiment, int(os.environ.get("WORLD_SIZE", "1")))
    quieten_engine()
    from moe.train import train

    engine = start_engine(experiment.parallel, seed=experiment.train.seed)
    watcher = progress if engine.is_main else None
    try:
        return train(
            experiment,
            engine,
            run_dir,
            resume=resume,
            observers=[EnergyObserver(experiment.energy)],
            progress=watcher,
        )
    finally:
        if watcher is not None:
            watcher.end()
        stop_engine()


def _train_processes(
    file: Path, overrides: Sequence[str], run_dir: Path, *, resume: bool, nproc: int
) -> None:
    """Train with `nproc` processes of this machine under torchrun.

    Raises:
        StoppedError: A signal stopped the run after its checkpoint.
        ConfigError: A rank refused its input (it has said why).
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    arguments = ["-m", "benchmarks.training", str(file), str(run_dir), str(int(resume)), *overrides]
    try:
        launch_ranks(arguments, nproc)
    except (ChildFailedError, SignalException) as error:
        codes = {f.exitcode for f in getattr(error, "failures", {}).values()}
        if isinstance(error, SignalException) or StoppedError.exit_code in codes:
            raise StoppedError("stopped by a signal: continue with --resume") from None
        if ConfigError.exit_code in codes:
            raise ConfigError("a rank refused its input, as it says above") from None
        raise


def launch_ranks(arguments: Sequence[str], nproc: int) -> None:
    """Run this Python with `arguments` as `nproc` ranks of this machine, under torchrun."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=nproc,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        run_id=f"moescale-{os.getpid()}",
        max_restarts=0,
        signals_to_handle="SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR2",
    )
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // nproc)))
    elastic_launch(config, sys.executable)(*arguments)


def main() -> None:
    """Be one rank: EXPERIMENT RUN_DIR RESUME [OVERRIDE...]."""
    file, run_dir, resume, *overrides = sys.argv[1:]
    try:
        experiment = load_experiment(Path(file), overrides)
        train_rank(experiment, Path(run_dir), resume=resume == "1", progress=TrainingProgress())
    except Exception as error:
        code = getattr(error, "exit_code", None)
        if code is None:
            raise
        if os.environ.get("RANK", "0") == "0":
            print(f"moe: {error}", file=sys.stderr)
        sys.exit(code)


if __name__ == "__main__":
    main()
