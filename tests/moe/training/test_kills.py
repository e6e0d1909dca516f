"""`kill -9` of ranks: no step is lost beyond the last complete checkpoint.

Every point at which a save can be cut short is in tests/moe/checkpoint/test_crash_points.py.
"""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from moe.checkpoint.directory import latest_checkpoint, step_of
from moe.checkpoint.index import verify_files
from tests.support.distributed import RankFailedError
from tests.support.fault_injection import Kill, assert_same_parameters, record, rows, run
from tests.support.layout_equivalence import make

KILLS = (
    Kill(ranks=(1,), step=1),
    Kill(ranks=(0,), step=0, at_sync=4),  # in its save: the tensors are durable, the index is not
    Kill(ranks=(0, 1), step=1),
)
"""One after the other: a rank that holds no record, the rank that completes a save, both."""


def test_killed_again_and_again(store: Path, tmp_path: Path) -> None:
    train = {"steps": 6, "warmup_steps": 2, "global_batch_size": 4}
    experiment = make(store, {"ep": 2}, train=train | {"checkpoint_interval": 1})
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    undisturbed = run(2, make(store, {"ep": 2}, train=train), whole)
    done = 0
    for number, kill in enumerate(KILLS):
        with pytest.raises(RankFailedError):
            run(2, experiment, killed, resume=True, fault=kill)
        newest = latest_checkpoint(killed / "checkpoints")
        before, done = done, 0 if newest is None else step_of(newest)
        assert done >= before
        if newest is not None:
            verify_files(newest)
        # A save waits for the one before: at most one was under way, of the step last begun.
        assert done >= len(rows(killed)) - 2
        if kill.at_sync is not None:
            assert len(rows(killed)) > done == before, "the save was cut short"
        starts = record(killed)["starts"]
        assert (len(starts), starts[-1]["first_step"]) == (number + 1, before)
    assert done < train["steps"]
    resumed = run(2, experiment, killed, resume=True)
    assert_same_parameters(resumed, undisturbed)
    assert rows(killed) == rows(whole)
    assert rows(killed, "expert_load") == rows(whole, "expert_load")
    assert not list((killed / "checkpoints").glob(".*old"))
    _check_goodput(record(killed), record(whole))


def _check_goodput(killed: dict[str, Any], whole: dict[str, Any]) -> None:
    ended = [start["ended"] for start in killed["starts"]]
    assert ended[-1] == "finished"
    assert set(ended[:-1]) <= {"killed", "failed"}
    goodput = killed["goodput"]
    assert goodput["starts"] == len(KILLS) + 1
    assert goodput["useful_tokens"] == whole["tokens"] == killed["tokens"]
    assert goodput["lost_tokens"] > 0 == whole["goodput"]["lost_tokens"]
    assert goodput["allocated_s"] == pytest.approx(sum(s["allocated_s"] for s in killed["starts"]))
    assert 0 < goodput["useful_share_of_time"] < 1


def _die_before_the_record() -> None:
    """Let this process die when it has trained, evaluated and saved, and is to record that."""
    from moe.training import loop

    def die(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    loop.record_end = die


def test_killed_between_last_checkpoint_and_record(store: Path, tmp_path: Path) -> None:
    """The run is evaluated again and finished, with the results of one that was not disturbed."""
    train = {"steps": 3, "warmup_steps": 1, "eval_interval": 3, "checkpoint_interval": 3}
    experiment = make(store, {"ep": 2}, train=train)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    undisturbed = run(2, experiment, whole)
    with pytest.raises(RankFailedError):
        run(2, experiment, killed, prepare=_die_before_the_record)
    assert (record(killed)["status"], step_of(_newest(killed))) == ("running", 3)
    saved = (_newest(killed) / "index.json").stat().st_mtime_ns
    resumed = run(2, experiment, killed, resume=True)
    assert_same_parameters(resumed, undisturbed)
    assert (_newest(killed) / "index.json").stat().st_mtime_ns == saved, "written once"
    for name in ("metrics", "evaluations", "expert_load"):
        assert rows(killed, name) == rows(whole, name)
    ended, expected = record(killed), record(whole)
    for key in ("status", "steps", "tokens", "stream_hash", "final_loss", "train_loss"):
        assert ended[key] == expected[key], key
    assert ended["tokens_per_s"] > 0
    assert [start["ended"] for start in ended["starts"]] == ["killed", "finished"]
    run(2, experiment, killed, resume=True)
    assert record(killed) == ended, "a finished run stays as it is"


def _newest(run_dir: Path) -> Path:
    newest = latest_checkpoint(run_dir / "checkpoints")
    assert newest is not None
    return newest
