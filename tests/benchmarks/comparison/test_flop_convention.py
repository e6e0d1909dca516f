"""Runs whose FLOPs are counted by unlike conventions are not compared."""

from pathlib import Path
from typing import Any

import pytest
import tomli_w

from benchmarks.comparison.flop_convention import OWN_CONVENTION, convention
from benchmarks.errors import BenchmarkError
from benchmarks.report.write import write_report
from moe.config.experiment import load_model
from moe.cost.ledger import ledger
from moe.runs.reader import read_run
from moe.runs.run import Run
from tests.support.synthetic_runs import make_run


def real_run(path: Path, factor: float = 1.0, **more: Any) -> Run:
    """A run whose ledger is moe.cost.ledger's own, times `factor`."""
    model = load_model("tiny")
    counted = ledger(model, 128).as_json()
    counted["training_flops_per_token"] *= factor
    make_run(path, sparse=False, steps=4, changes={"ledger": {**counted, **more}})
    experiment = {
        "name": path.name,
        "model": model.model_dump(mode="json", exclude_none=True),
        "train": {"seq_len": 128},
    }
    (path / "experiment.toml").write_text(tomli_w.dumps(experiment))
    return read_run(path)


def test_our_convention_is_recognized_by_counting_again(tmp_path: Path) -> None:
    assert convention(real_run(tmp_path / "a")) == OWN_CONVENTION
    assert "0.9 x moescale's" in convention(real_run(tmp_path / "b", 0.9))
    assert convention(real_run(tmp_path / "c", flop_convention="hfu")) == "hfu"


def test_unlike_conventions_are_not_compared_silently(tmp_path: Path) -> None:
    runs = [real_run(tmp_path / "a"), real_run(tmp_path / "b", 1.07)]
    with pytest.raises(BenchmarkError, match="unlike conventions.*a by moescale.*b by another"):
        write_report([run.path for run in runs], tmp_path / "out")
    assert not (tmp_path / "out").exists()
