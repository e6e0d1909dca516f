"""Real runs that meet with a fault: what each rank does, and what is left to compare."""

import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

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

    def arm(self, trainer: Any) -> None:
        """Set the trap in this process."""
        if self.at_sync is None:
            trainer.optimizer.step = _die
            return
        left, sync = [self.at_sync], os.fsync

        def counted(file: Any) -> None:
            if left[0] == 0:
                _die()
            left[0] -= 1
            sync(file)

        os.fsync = counted


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def train_rank(
    experiment: Experiment,
    run_dir: Path,
    *,
    prepare: Callable[[], None] = lambda: None,
    kill: Kill | None = None,
    progress: At | None = None,
    **how: Any,
) -> list[Shard]:
    """Train one rank of a run, whose process is prepared first; returns its parameters' parts."""
    from moe.training import loop as training
    from moe.training.trainer import Trainer
    from parallel.engine.start import start_engine, stop_engine

    prepare()
    made: list[Trainer] = []
    first: list[int] = []

    class Watched(Trainer):
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more)
            made.append(self)

        def step(self, index: int, **more: Any) -> Any:
            first.append(index)
            if kill is not None and index == first[0] + kill.step and engine.rank in kill.ranks:
                kill.arm(self)
            return super().step(index, **more)

    training.Trainer = Watched  # type: ignore[misc]
    engine = start_engine(experiment.parallel, seed=experiment.train.seed)
    watcher = progress if engine.is_main else None
    training.train(experiment, engine, run_dir, progress=watcher, **how)
    parts = shards(made[0].chunks)
    stop_engine()
    return parts


def run(num_ranks: int, experiment: Experiment, run_dir: Path, **how: Any) -> list[list[Shard]]:
    """Train in `num_ranks` processes; returns their parameters' parts."""
    return run_ranks(num_ranks, partial(train_rank, experiment, run_dir, **how))


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


def wait_until(condition: Any, timeout_s: float = 600.0) -> None:
    """Wait for a condition to hold."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)
