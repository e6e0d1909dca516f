"""A stopped run goes on as if it had not been stopped, bit by bit."""

import json
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from data.build.build import build_recipe
from data.recipe import DataRecipe
from moe.config.experiment import Experiment
from tests.support.distributed import RankFailedError
from tests.support.fault_injection import (
    assert_same_parameters,
    record,
    rows,
    run,
    run_until_stopped,
)
from tests.support.layout_equivalence import TRAIN, make

INTERVALS = {"steps": 8, "warmup_steps": 2, "eval_interval": 4, "eval_sequences": 8}
LONGER = INTERVALS | {"steps": 12}


@pytest.mark.parametrize(
    ("num_ranks", "layout", "step", "number"),
    [
        pytest.param(1, {}, 5, signal.SIGTERM, id="one"),
        pytest.param(2, {"tp": 2}, 3, signal.SIGUSR2, id="tp2_where_an_evaluation_is_due"),
        pytest.param(
            4, {"pp": 2, "ep": 2}, 5, signal.SIGTERM, id="pp2_ep2", marks=pytest.mark.engine
        ),
        pytest.param(
            2,
            {"ep": 2, "overlap_experts": True},
            5,
            signal.SIGTERM,
            id="ep2_overlapped",
            marks=pytest.mark.engine,
        ),
    ],
)
def test_resumed_equals_uninterrupted(
    num_ranks: int, layout: dict[str, Any], step: int, number: int, store: Path, tmp_path: Path
) -> None:
    experiment = make(store, layout, train=INTERVALS)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    uninterrupted = run(num_ranks, experiment, whole)
    run_until_stopped(num_ranks, experiment, cut, step, number)
    assert rows(cut)[-1]["step"] == step + 1
    assert record(cut)["status"] == "stopped"
    resumed = run(num_ranks, experiment, cut, resume=True)
    assert record(cut)["status"] == "finished"
    assert rows(cut) == rows(whole)
    assert rows(cut, "expert_load") == rows(whole, "expert_load")
    assert rows(cut, "evaluations") == rows(whole, "evaluations")
    assert_same_parameters(resumed, uninterrupted)


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
        return make(tmp_path / "store", train=LONGER, data=keys)

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    uninterrupted = run(1, experiment(**changed), whole)
    run_until_stopped(1, experiment(**data, feed=FEEDS[-1]), cut, 5)
    too_late = {**data, "changes": [{"step": 2, "weights": {"other": 1}}]}
    with pytest.raises(RankFailedError, match="another sample stream: up to sample"):
        run(1, experiment(**too_late), cut, resume=True)
    moved = (tmp_path / "store").rename(tmp_path / "moved")
    elsewhere = experiment(**{**changed, "store": str(moved), "feed": FEEDS[-1]})
    resumed = run(1, elsewhere, cut, resume=True)
    assert record(cut)["status"] == "finished"
    for name in ("metrics", "evaluations"):
        assert rows(cut, name) == rows(whole, name)
    assert_same_parameters(resumed, uninterrupted)
    told = record(cut)["data"]
    samples = LONGER["steps"] * TRAIN["global_batch_size"]
    read = {name: source["epochs"] * source["sequences"] for name, source in told.items()}
    assert read == pytest.approx({"plain": samples / 2, "other": samples / 2})
    for line in (cut / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert 0 <= row["data_stall_share"] <= 1
        assert row["data_stall_s"] <= row["step_time_s"]


def test_a_second_start_is_refused(store: Path, tmp_path: Path) -> None:
    experiment = make(store, train={"steps": 2, "warmup_steps": 0})
    run(1, experiment, tmp_path / "run")
    with pytest.raises(RankFailedError, match="already holds a run: continue it with --resume"):
        run(1, experiment, tmp_path / "run")
    other = make(store, train={"steps": 3, "warmup_steps": 0})
    with pytest.raises(RankFailedError, match="holds another experiment"):
        run(1, other, tmp_path / "run", resume=True)
