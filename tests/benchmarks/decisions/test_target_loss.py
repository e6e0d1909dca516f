"""Tokens until a loss is reached."""

import json
from pathlib import Path

import pytest

from benchmarks.decisions.target_loss import loss_target
from benchmarks.errors import BenchmarkError
from benchmarks.laws.compare import fit_law_to
from benchmarks.laws.registry import LAWS
from moe.config.experiment import load_model
from moe.cost.ledger import ledger
from tests.benchmarks.planning.jobs import planner
from tests.support.law_points import made_points

JOB = planner("llama3-8b").job


def test_tokens_are_the_law_s_inverse() -> None:
    v = LAWS["chinchilla"].published[0].values
    size = ledger(load_model("llama3-8b"), 4096).total_parameters
    found = loss_target("besiroglu-2024", 2.1, JOB)
    left = 2.1 - v["E"] - v["A"] / size ** v["alpha"]
    assert found.tokens == pytest.approx((v["B"] / left) ** (1 / v["beta"]), rel=1e-3)
    assert found.interval is None
    assert any("other people's data" in warning for warning in found.warnings)


def test_a_law_keeps_the_name_that_was_asked_for() -> None:
    found = loss_target("hoffmann-2022", 2.1, JOB).as_json()
    assert (found["asked"], found["law"]) == ("hoffmann-2022", "chinchilla")


@pytest.mark.parametrize(
    ("law", "is_said"), [("besiroglu-2024", True), ("ludziejewski-2025", False)]
)
def test_a_law_of_dense_models_says_so_of_a_sparse_one(law: str, is_said: bool) -> None:
    found = loss_target(law, 2.2, planner("mixtral-8x7b").job)
    assert any("knows nothing of experts" in one for one in found.as_json()["warnings"]) == is_said
    assert not any("experts" in one for one in loss_target("besiroglu-2024", 2.2, JOB).warnings)


def test_a_fit_gives_an_interval_that_may_be_open(tmp_path: Path) -> None:
    path = tmp_path / "law.json"
    path.write_text(json.dumps(fit_law_to(made_points("chinchilla", 0.01), "chinchilla",
                                          resamples=40).document))  # fmt: skip
    found = loss_target(str(path), 2.2, JOB)
    assert found.interval is not None
    low, high = found.interval
    assert low < found.tokens
    assert high is None or high > found.tokens
    assert "parameters is beyond the fitted points" in found.warnings


def test_a_loss_below_the_floor_is_refused() -> None:
    with pytest.raises(BenchmarkError, match=r"stays above 1\.98\d\d however long"):
        loss_target("besiroglu-2024", 1.9, JOB)


@pytest.mark.parametrize(
    ("law", "loss", "reason"),
    [
        ("ling", 2.0, "does not tell tokens"),
        ("clark", 2.0, "does not tell tokens"),
        ("besiroglu-2024", float("nan"), "--target-loss nan"),
        ("besiroglu-2024", 0.0, "--target-loss 0"),
    ],
)
def test_what_no_law_tells_is_refused(law: str, loss: float, reason: str) -> None:
    with pytest.raises(BenchmarkError, match=reason):
        loss_target(law, loss, JOB)
