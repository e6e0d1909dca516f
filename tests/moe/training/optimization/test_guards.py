"""Guards: rejected steps leave the model as it was, a dump that replays them, and a row."""

import errno
import json
import math
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from moe.checkpoint.directory import complete_checkpoints, step_of
from moe.config.experiment import Experiment
from moe.training.optimization.guards import Guard, StepRejectedError
from tests.support.distributed import RankFailedError, run_ranks
from tests.support.fault_injection import Spoil, record, rows, run
from tests.support.layout_equivalence import Shard, make

TRAIN = {"steps": 6, "warmup_steps": 1, "global_batch_size": 4, "checkpoint_interval": 2}


def _slow_storage() -> None:
    """Let storage be slow with the checkpoint before the rejected step."""
    from moe.checkpoint import format

    write = format.write_tensors

    def slow(path: Path, tensors: Any) -> None:
        if "checkpoints" in path.parts:
            time.sleep(3)
        write(path, tensors)

    format.write_tensors = slow


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_rejected_step_stops_the_run_with_a_dump(what: Any, store: Path, tmp_path: Path) -> None:
    run_dir, experiment = tmp_path / "run", make(store, train=TRAIN)
    named = r"GuardError: step 4 \(samples 12 to 15\): the (loss|gradient norm) is (nan|inf)"
    with pytest.raises(RankFailedError, match=named):
        run(1, experiment, run_dir, prepare=_slow_storage, fault=Spoil(4, what))
    assert record(run_dir)["status"] == "failed"
    assert [step_of(path) for path in complete_checkpoints(run_dir / "checkpoints")] == [2]
    (refused,) = rows(run_dir, "refused")
    assert (refused["step"], refused["action"], refused["samples"]) == (4, "stop", [12, 16])
    assert [step_of(path) for path in complete_checkpoints(run_dir / "dumps")] == [4]
    # Undisturbed, the dump gives what that step really is; then the run goes on as if untouched.
    again = run_ranks(1, _replay, experiment, run_dir, 4)[0]
    run(1, experiment, run_dir, resume=True)
    whole = tmp_path / "whole"
    run(1, experiment, whole)
    assert rows(run_dir) == rows(whole)
    assert again["fault"] is None
    assert (again["loss"], again["grad_norm"]) == (
        rows(whole)[3]["loss"],
        rows(whole)[3]["grad_norm"],
    )


def _replay(experiment: Experiment, run_dir: Path, step: int) -> dict[str, Any]:
    from moe.training.replay import replay
    from parallel.engine.start import start_engine

    return replay(experiment, start_engine(experiment.parallel, seed=0), run_dir, step)


def _storage_refuses_dumps() -> None:
    from moe.checkpoint import format, writer

    writer.RETRY_AFTER_S = (0.0,)  # type: ignore[assignment]
    write = format.write_tensors

    def failing(path: Path, tensors: Any) -> None:
        if "dumps" in path.parts:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, tensors)

    format.write_tensors = failing


REFUSED_DUMP = r"the dump of step 2 could not be written, tried 2 times: .*No space left.*"


def test_a_run_that_goes_on_does_so_without_a_dump(store: Path, tmp_path: Path) -> None:
    train = TRAIN | {"steps": 3, "on_nonfinite": "skip", "on_failed_save": "continue"}
    experiment = make(store, train=train)
    run(1, experiment, tmp_path / "run", prepare=_storage_refuses_dumps, fault=Spoil(2, "loss"))
    found = record(tmp_path / "run")
    assert (found["status"], found["rejected_steps"]) == ("finished", 1)
    (message,) = found["failed_saves"]
    assert re.match(REFUSED_DUMP, message)
    assert [row["fault"] for row in rows(tmp_path / "run", "refused")] == ["the loss is nan"]


@pytest.mark.parametrize(
    ("on_nonfinite", "message"),
    [
        ("stop", rf"GuardError: step 2 \(.*: the loss is nan; {REFUSED_DUMP}; then go on with"),
        ("skip", rf"StorageError: step 2 \(.*: the loss is nan, and was skipped; {REFUSED_DUMP}"),
    ],
)
def test_a_run_that_ends_without_a_dump_says_of_what(
    on_nonfinite: str, message: str, store: Path, tmp_path: Path
) -> None:
    experiment = make(store, train=TRAIN | {"on_nonfinite": on_nonfinite})
    how: dict[str, Any] = {"prepare": _storage_refuses_dumps, "fault": Spoil(2, "loss")}
    with pytest.raises(RankFailedError, match=message):
        run(1, experiment, tmp_path / "run", **how)
    assert len(rows(tmp_path / "run", "refused")) == 1


@pytest.mark.engine
def test_a_skipped_step_changes_nothing_but_the_place_in_the_data(
    store: Path, tmp_path: Path
) -> None:
    """Two ranks skip alike; a checkpoint before and after the skipped step hold one model."""
    train = TRAIN | {"steps": 4, "on_nonfinite": "skip", "checkpoint_interval": 1,
                     "keep_checkpoints": 9}  # fmt: skip
    experiment = make(store, {"ep": 2}, train=train)
    parts = run(2, experiment, tmp_path / "run", fault=Spoil(2, "gradient"))
    assert _checksums(tmp_path / "run", 1) == _checksums(tmp_path / "run", 2)
    assert _checksums(tmp_path / "run", 2) != _checksums(tmp_path / "run", 3)
    assert record(tmp_path / "run")["status"] == "finished"
    assert [row["step"] for row in rows(tmp_path / "run", "refused")] == [2]
    _assert_finite(parts)


def _checksums(run_dir: Path, step: int) -> dict[str, str]:
    index = json.loads((run_dir / f"checkpoints/step-{step:08d}/index.json").read_text())
    return {name: digest for name, digest in index["files"].items() if "rank" in name}


def _assert_finite(ranks: list[list[Shard]]) -> None:
    for block in (block for rank in ranks for block in rank):
        assert math.isfinite(float(abs(block.values).max())), block.key


def _guard(**train: Any) -> Guard:
    values = {"steps": 9, "seq_len": 8, "global_batch_size": 1, **train}
    from moe.config.train import TrainConfig

    return Guard(TrainConfig(**values))


def test_spikes_are_judged_by_the_median() -> None:
    guard = _guard(on_spike="skip", spike_factor=1.5, spike_window=3)
    for loss in (3.0, 100.0):
        assert guard.check_loss(loss) is None, "the window is not full"
    for loss in (4.0, 2.0, 3.0):
        guard.accept(loss)
    assert guard.check_loss(4.5) is None
    fault = guard.check_loss(4.51)
    assert fault is not None
    assert fault.action == "skip"
    assert "median 3.0000" in fault.reason
    other = _guard(on_spike="skip", spike_factor=1.5, spike_window=3)
    other.load(json.loads(json.dumps(guard.state())))
    assert other.check_loss(4.51) == fault


def test_too_many_skipped_steps_stop() -> None:
    guard = _guard(on_nonfinite="skip", max_skipped=2)
    actions = []
    for _ in range(3):
        fault = guard.check_loss(math.inf)
        assert fault is not None
        actions.append(fault.action)
    assert actions == ["skip", "skip", "stop"]
    guard = _guard(on_nonfinite="skip", max_skipped=1)
    for norm in (math.nan, math.inf):
        with pytest.raises(StepRejectedError):
            guard.check_grad_norm(norm)
        guard.accept(1.0)
    guard.check_grad_norm(1.0)
