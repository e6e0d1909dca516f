"""`kill -9` at any moment: no step is lost beyond the last complete checkpoint."""

import random
from pathlib import Path

import pytest

from moe.checkpoint.directory import latest_checkpoint, step_of
from moe.checkpoint.index import verify_files
from tests.support.distributed import RankFailedError
from tests.support.fault_injection import Kill, assert_same_parameters, record, rows, run
from tests.support.layout_equivalence import make

MOMENTS = 20
CHANCE = random.Random(6)


def _moment(number: int, done: int) -> Kill:
    """One rank or both, at some time in one of the next steps or inside its save."""
    ranks = CHANCE.choice([(0,), (1,), (0, 1)])
    step = done + CHANCE.randint(0, 1)
    if number % 2:
        return Kill(ranks, step, at_sync=CHANCE.randint(0, 8 if 0 in ranks else 0))
    return Kill(ranks, step, after_s=CHANCE.uniform(0, 0.3))


def test_killed_at_twenty_moments(store: Path, tmp_path: Path) -> None:
    train = {"steps": 2 * MOMENTS, "warmup_steps": 2, "global_batch_size": 4}
    experiment = make(store, {"ep": 2}, train=train | {"checkpoint_interval": 1})
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    undisturbed = run(2, make(store, {"ep": 2}, train=train), whole)
    done = 0
    for number in range(MOMENTS):
        with pytest.raises(RankFailedError):
            run(2, experiment, killed, resume=True, kill=_moment(number, done))
        newest = latest_checkpoint(killed / "checkpoints")
        before, done = done, 0 if newest is None else step_of(newest)
        assert done >= before
        if newest is not None:
            verify_files(newest)
        # A save waits for the one before: at most one was under way, of the step last begun.
        assert done >= len(rows(killed)) - 2
        starts = record(killed)["starts"]
        assert (len(starts), starts[-1]["first_step"]) == (number + 1, before)
    resumed = run(2, experiment, killed, resume=True)
    assert_same_parameters(resumed, undisturbed)
    assert rows(killed) == rows(whole)
    assert rows(killed, "expert_load") == rows(whole, "expert_load")
    assert not list((killed / "checkpoints").glob(".*old"))
    _check_goodput(record(killed), record(whole))


def _check_goodput(killed: dict, whole: dict) -> None:  # type: ignore[type-arg]
    ended = [start["ended"] for start in killed["starts"]]
    assert ended[-1] == "finished"
    assert set(ended[:-1]) <= {"killed", "failed"}
    goodput = killed["goodput"]
    assert goodput["starts"] == MOMENTS + 1
    assert goodput["useful_tokens"] == whole["tokens"] == killed["tokens"]
    assert goodput["lost_tokens"] > 0 == whole["goodput"]["lost_tokens"]
    assert goodput["allocated_s"] == pytest.approx(sum(s["allocated_s"] for s in killed["starts"]))
    assert 0 < goodput["useful_share_of_time"] < 1
