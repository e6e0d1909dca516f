"""What is saved before the first update is as complete as any checkpoint."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from moe.checkpoint.directory import complete_checkpoints, step_of
from moe.config.experiment import Experiment
from tests.support.distributed import run_ranks
from tests.support.fault_injection import record, rows, run
from tests.support.layout_equivalence import make

pytestmark = pytest.mark.engine
HOPELESS = {"init_std": 1e30}
"""Gradients of such a model are not finite."""


def _replay(experiment: Experiment, run_dir: Path) -> dict[str, Any]:
    from moe.training.replay import replay
    from parallel.engine.start import start_engine

    return replay(experiment, start_engine(experiment.parallel, seed=0), run_dir, 1)


def _stderr_to(file: Path) -> None:
    os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), 2)


@pytest.mark.parametrize("distributed", [True, False])
def test_a_run_whose_steps_are_all_rejected_is_saved_resumed_and_replayed(
    distributed: bool, store: Path, tmp_path: Path
) -> None:
    train = {"steps": 3, "warmup_steps": 1, "global_batch_size": 4, "on_nonfinite": "skip",
             "checkpoint_interval": 1, "keep_checkpoints": 9}  # fmt: skip
    layout = {"distributed_optimizer": distributed}
    experiment, run_dir = make(store, layout, model=HOPELESS, train=train), tmp_path / "run"
    run(1, experiment, run_dir)
    first = rows(run_dir)
    run(1, experiment, run_dir, from_step=1, prepare=partial(_stderr_to, tmp_path / "stderr"))
    assert rows(run_dir) == first
    assert [step_of(path) for path in complete_checkpoints(run_dir / "checkpoints")] == [1, 2, 3]
    assert run_ranks(1, _replay, experiment, run_dir)[0]["fault"] == "the gradient norm is nan"
    found = record(run_dir)
    assert (found["status"], found["steps"], found["rejected_steps"]) == ("finished", 3, 3)
    assert "learned nothing: all 3 steps were rejected" in (tmp_path / "stderr").read_text()
