"""Real runs that meet with a fault: what each rank does, and what is left to compare."""

import json
import os
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training import Block, blocks

from moe.config.experiment import Experiment

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
    """A `kill -9` of some ranks, a while after a step began on each."""

    ranks: tuple[int, ...]
    step: int
    after_s: float


def train_rank(
    experiment: Experiment,
    run_dir: Path,
    *,
    resume: bool = False,
    kill: Kill | None = None,
    progress: At | None = None,
    from_step: int | None = None,
) -> list[Block]:
    """Train one rank of a run; returns its parts of the parameters."""
    from moe import train as training
    from moe.train_step import Trainer
    from parallel.engine import start_engine, stop_engine

    made: list[Trainer] = []

    class Watched(Trainer):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

        def step(self, index: int, **more: Any) -> Any:
            if kill is not None and index == kill.step and self.engine.rank in kill.ranks:
                threading.Timer(kill.after_s, os.kill, (os.getpid(), signal.SIGKILL)).start()
            return super().step(index, **more)

    training.Trainer = Watched  # type: ignore[misc]
    engine = start_engine(experiment.parallel, seed=experiment.train.seed)
    training.train(
        experiment,
        engine,
        run_dir,
        resume=resume,
        from_step=from_step,
        progress=progress if engine.is_main else None,
    )
    parts = blocks(made[0].chunks)
    stop_engine()
    return parts


def rows(run_dir: Path, name: str = "metrics") -> list[dict[str, Any]]:
    """Return a run's rows without what is timed."""
    lines = (run_dir / f"{name}.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMED} for line in lines]


def assert_same_parameters(ranks: list[list[Block]], others: list[list[Block]]) -> None:
    """Compare two runs' parameters, bit by bit."""
    for mine, theirs in zip(ranks, others, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert (a.key, a.offset) == (b.key, b.offset)
            assert a.values.tobytes() == b.values.tobytes(), a.key


def record(run_dir: Path) -> dict[str, Any]:
    """Return a run's record."""
    found: dict[str, Any] = json.loads((run_dir / "record.json").read_text())
    return found


def wait_until(condition: Any, timeout_s: float = 60.0) -> None:
    """Wait for a condition to hold."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)
