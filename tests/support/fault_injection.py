"""Real runs that meet with a fault: what each rank does, and what is left to compare."""

import json
import math
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from moe.config.experiment import Experiment
from tests.support.distributed import run_ranks
from tests.support.layout_equivalence import Shard, shards

TIMED = ("step_time_s", "tokens_per_s", "flops_per_s", "mfu", "data_stall_s",
         "data_stall_share", "allocated_s")  # fmt: skip
"""Columns of a metrics row that differ from run to run."""


@dataclass
class At:
    """Does something when a step's row is written (rank 0's progress)."""

    step: int
    act: Any

    def begin(self, step: int, steps: int) -> None: ...

    def evaluated(self, step: int, loss: float | None) -> None: ...

    def row(self, row: Mapping[str, Any]) -> None:
        if row["step"] == self.step:
            self.act()


@dataclass(frozen=True)
class Kill:
    """A `kill -9` of some ranks: in the middle of a step, or inside the save after it."""

    ranks: tuple[int, ...]
    step: int
    """Counted from the first step of the start; its gradients are there, its update is not."""
    at_sync: int | None = None
    """Instead: before this many more files have been forced to disk since that step began."""

    def apply(self, trainer: Any) -> Any:
        """Return the trainer of a rank, with a trap in it if the rank is to be killed."""
        if trainer.engine.rank not in self.ranks:
            return trainer
        if self.at_sync is None:
            return replace(trainer, optimizer=Trap(trainer.optimizer, "step", self.step, _die))
        set_trap = partial(_die_at_sync, self.at_sync)
        return replace(trainer, loader=Trap(trainer.loader, "step", self.step, set_trap))


class Trap:
    """Stands for an object, and acts before one call of one of its methods."""

    def __init__(self, trapped: Any, method: str, call: int, act: Callable[[], None]) -> None:
        """Act before call number `call` (from 0) of `method`; all else is the object's."""
        self._trapped, self._method, self._calls_left, self._act = trapped, method, call, act

    def __getattr__(self, name: str) -> Any:
        if name == self._method:
            if self._calls_left == 0:
                self._act()
            self._calls_left -= 1
        return getattr(self._trapped, name)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_at_sync(syncs: int) -> None:
    """Let this process die before it forces another file to disk after `syncs` more."""
    left, sync = [syncs], os.fsync

    def counted(file: Any) -> None:
        if left[0] == 0:
            _die()
        left[0] -= 1
        sync(file)

    os.fsync = counted


@dataclass(frozen=True)
class Spoil:
    """Makes the loss, or only a gradient, of one step not finite."""

    step: int
    """From 1."""
    what: Literal["loss", "gradient"]

    def apply(self, trainer: Any) -> Any:
        """Return the trainer of a rank with that fault."""
        return replace(trainer, runner=_SpoiltRunner(trainer.runner, self.step, self.what))


class _SpoiltRunner:
    def __init__(self, runner: Any, step: int, what: str) -> None:
        self._runner, self._steps_left, self._what = runner, step, what

    def run(self, chunks: Any, *args: Any, forward_only: bool) -> Any:
        outputs = self._runner.run(chunks, *args, forward_only=forward_only)
        self._steps_left -= not forward_only
        if self._steps_left == 0 and not forward_only:
            if self._what == "loss":
                outputs[0][0] = math.nan
            else:
                next(iter(chunks[0].module.parameters())).main_grad.fill_(math.inf)
        return outputs


def train_rank(
    experiment: Experiment,
    run_dir: Path,
    *,
    prepare: Callable[[], None] = lambda: None,
    fault: Kill | Spoil | None = None,
    progress: At | None = None,
    **how: Any,
) -> list[Shard]:
    """Train one rank of a run, whose process is prepared first; returns its parameters' shards."""
    from moe.training.startup.build import build_trainer
    from moe.training.train import train
    from parallel.engine.start import start_engine, stop_engine

    prepare()
    built: list[Any] = []

    def build(*args: Any, **more: Any) -> Any:
        trainer = build_trainer(*args, **more)
        built.append(trainer)
        return trainer if fault is None else fault.apply(trainer)

    engine = start_engine(experiment.parallel, seed=experiment.train.seed)
    watcher = progress if engine.is_main else None
    train(experiment, engine, run_dir, progress=watcher, build=build, **how)
    parts = shards(built[0].chunks)
    stop_engine()
    return parts


def stop_rank(experiment: Experiment, run_dir: Path, **how: Any) -> int:
    """Train one rank of a run that is stopped; returns its exit code."""
    from moe.errors import TrainingStoppedError

    try:
        train_rank(experiment, run_dir, **how)
    except TrainingStoppedError as stopped:
        return stopped.exit_code
    return 0


def run(num_ranks: int, experiment: Experiment, run_dir: Path, **how: Any) -> list[list[Shard]]:
    """Train in `num_ranks` processes; returns their parameters' shards."""
    return run_ranks(num_ranks, partial(train_rank, experiment, run_dir, **how))


def run_until_stopped(
    num_ranks: int, experiment: Experiment, run_dir: Path, step: int, number: int = signal.SIGTERM
) -> None:
    """Train in `num_ranks` processes until the first gets a signal after a step; all stop."""
    progress = At(step, partial(signal.raise_signal, number))
    codes = run_ranks(num_ranks, partial(stop_rank, experiment, run_dir, progress=progress))
    assert codes == [75] * num_ranks


def rows(run_dir: Path, name: str = "metrics") -> list[dict[str, Any]]:
    """Return a run's rows without what is timed."""
    path = run_dir / f"{name}.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return [{k: v for k, v in json.loads(line).items() if k not in TIMED} for line in lines]


def assert_same_parameters(ranks: list[list[Shard]], others: list[list[Shard]]) -> None:
    """Compare two runs' parameters, bit by bit."""
    for mine, theirs in zip(ranks, others, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert (a.key, a.offset) == (b.key, b.offset)
            assert a.values.tobytes() == b.values.tobytes(), a.key


def record(run_dir: Path) -> dict[str, Any]:
    """Return a run's record."""
    found: dict[str, Any] = json.loads((run_dir / "record.json").read_text())
    return found


def wait_until(condition: Any, timeout_s: float = 600.0, pause_s: float = 0.05) -> None:
    """Wait for a condition to hold."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(pause_s)
