"""A stopped run goes on as if it had not been stopped, bit by bit."""

import json
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from data.build.build import build_recipe
from data.recipe import DataRecipe
from moe.config.experiment import Experiment
from tests.support.distributed import RankFailedError, run_ranks
from tests.support.layout_equivalence import TRAIN, Shard, make, shards

pytestmark = pytest.mark.engine

INTERVALS = {"steps": 12, "warmup_steps": 2, "eval_interval": 4, "eval_sequences": 8}


@dataclass
class SignalAfter:
    """Sends this process a signal when a step's row is written (rank 0's progress)."""

    step: int
    number: int = signal.SIGTERM

    def begin(self, step: int, steps: int) -> None: ...

    def evaluated(self, step: int, loss: float | None) -> None: ...

    def row(self, row: Mapping[str, Any]) -> None:
        if row["step"] == self.step:
            os.kill(os.getpid(), self.number)


def _train(
    experiment: Experiment, run_dir: Path, resume: bool, progress: SignalAfter | None
) -> tuple[str, list[Shard]]:
    """Train one rank; returns how it ended and this rank's parts of the parameters."""
    from moe.errors import TrainingStoppedError
    from moe.training import loop as training
    from moe.training.trainer import Trainer
    from parallel.engine.start import start_engine, stop_engine

    made: list[Trainer] = []

    class Kept(Trainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(self)

    training.Trainer = Kept  # type: ignore[misc]
    engine = start_engine(experiment.parallel, seed=experiment.train.seed)
    outcome = "finished"
    try:
        training.train(
            experiment,
            engine,
            run_dir,
            resume=resume,
            progress=progress if engine.is_main else None,
        )
    except TrainingStoppedError as stopped:
        assert stopped.exit_code == 75
        outcome = "stopped"
    parts = shards(made[0].chunks)
    stop_engine()
    return outcome, parts


def _rows(run_dir: Path, name: str = "metrics") -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run_dir / f"{name}.jsonl").read_text().splitlines()]
    timed = ("step_time_s", "tokens_per_s", "flops_per_s", "mfu", "data_stall_s",
             "data_stall_share", "allocated_s")  # fmt: skip
    return [{key: value for key, value in row.items() if key not in timed} for row in rows]


def _assert_same_parameters(ranks: list[Any], others: list[Any]) -> None:
    for (_, mine), (_, theirs) in zip(ranks, others, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert (a.key, a.offset) == (b.key, b.offset)
            assert a.values.tobytes() == b.values.tobytes(), a.key


@pytest.mark.parametrize(
    ("num_ranks", "layout", "number"),
    [
        (1, {}, signal.SIGTERM),
        (2, {"tp": 2}, signal.SIGUSR2),
        (4, {"pp": 2, "ep": 2}, signal.SIGTERM),
    ],
    ids=["one", "tp2", "pp2_ep2"],
)
def test_resumed_equals_uninterrupted(
    num_ranks: int, layout: dict[str, Any], number: int, store: Path, tmp_path: Path
) -> None:
    experiment = make(store, layout, train=INTERVALS)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    uninterrupted = run_ranks(num_ranks, _train, experiment, whole, False, None)
    stopped = run_ranks(num_ranks, _train, experiment, cut, False, SignalAfter(5, number))
    assert [outcome for outcome, _ in stopped] == ["stopped"] * num_ranks
    last = _rows(cut)[-1]["step"]
    assert 5 <= last < 12
    assert json.loads((cut / "record.json").read_text())["status"] == "stopped"
    resumed = run_ranks(num_ranks, _train, experiment, cut, True, None)
    assert [outcome for outcome, _ in resumed] == ["finished"] * num_ranks
    assert _rows(cut) == _rows(whole)
    assert _rows(cut, "expert_load") == _rows(whole, "expert_load")
    assert _rows(cut, "evaluations") == _rows(whole, "evaluations")
    _assert_same_parameters(resumed, uninterrupted)


FEEDS = ("torch", "dali") if find_spec("nvidia") and find_spec("nvidia.dali") else ("torch",)


def test_a_blend_may_be_changed_on_the_way_whoever_feeds(tmp_path: Path) -> None:
    """Stopped after 5 steps and continued with a change from the ninth on, by another feed."""
    sources = []
    for name in ("plain", "other"):
        (tmp_path / name).mkdir()
        for number in range(20):
            text = " ".join(f"{name}{number}x{i}" for i in range(30))
            (tmp_path / name / f"{number}.txt").write_text(text)
        sources.append({"name": name, "paths": [tmp_path / name]})
    recipe = {"source": sources, "tokenizer": "bytes", "held_out_fraction": 0.1}
    build_recipe(DataRecipe.model_validate(recipe), tmp_path / "store")
    data = {"store": str(tmp_path / "store"), "weights": {"plain": 3, "other": 1}}
    changed = {**data, "changes": [{"step": 8, "weights": {"other": 1}}]}

    def experiment(**keys: Any) -> Experiment:
        return make(tmp_path / "store", train=INTERVALS, data=keys)

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    uninterrupted = run_ranks(1, _train, experiment(**changed), whole, False, None)
    stopped = run_ranks(1, _train, experiment(**data, feed=FEEDS[-1]), cut, False, SignalAfter(5))
    assert stopped[0][0] == "stopped"
    too_late = {**data, "changes": [{"step": 2, "weights": {"other": 1}}]}
    with pytest.raises(RankFailedError, match="another sample stream: up to sample"):
        run_ranks(1, _train, experiment(**too_late), cut, True, None)
    moved = (tmp_path / "store").rename(tmp_path / "moved")
    resumed = run_ranks(
        1,
        _train,
        experiment(**{**changed, "store": str(moved), "feed": FEEDS[-1]}),
        cut,
        True,
        None,
    )
    assert resumed[0][0] == "finished"
    for name in ("metrics", "evaluations"):
        assert _rows(cut, name) == _rows(whole, name)
    _assert_same_parameters(resumed, uninterrupted)
    told = json.loads((cut / "record.json").read_text())["data"]
    samples = INTERVALS["steps"] * TRAIN["global_batch_size"]
    read = {name: source["epochs"] * source["sequences"] for name, source in told.items()}
    assert read == pytest.approx({"plain": samples / 2, "other": samples / 2})
    for line in (cut / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert 0 <= row["data_stall_share"] <= 1
        assert row["data_stall_s"] <= row["step_time_s"]


def test_a_second_start_is_refused(store: Path, tmp_path: Path) -> None:
    experiment = make(store, train={"steps": 2, "warmup_steps": 0})
    run_ranks(1, _train, experiment, tmp_path / "run", False, None)
    with pytest.raises(RankFailedError, match="already holds a run: continue it with --resume"):
        run_ranks(1, _train, experiment, tmp_path / "run", False, None)
    other = make(store, train={"steps": 3, "warmup_steps": 0})
    with pytest.raises(RankFailedError, match="holds another experiment"):
        run_ranks(1, _train, other, tmp_path / "run", True, None)
