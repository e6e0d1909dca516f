"""The kept study: its page says what its result says, and its laws follow from its runs."""

import json
from typing import Any

import numpy as np
import pytest

from benchmarks.laws.points import Points
from benchmarks.laws.quantities import QUANTITIES
from benchmarks.study.evidence import PAGE, newest_result, updated_page
from benchmarks.study.laws import fit_apart
from benchmarks.study.pairs import pairs_of
from benchmarks.study.prediction import predict_run
from benchmarks.study.sweeps import HELD_OUT


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(newest_result().read_text())
    return found


def test_the_page_says_what_the_result_says() -> None:
    """Otherwise: python -m benchmarks.study.evidence."""
    text = PAGE.read_text(encoding="utf-8")
    assert updated_page(text, newest_result()) == text


def test_laws_and_predictions_follow_from_the_runs(document: dict[str, Any]) -> None:
    fitted = [run for run in document["runs"] if not run["run"].startswith(HELD_OUT)]
    assert len(fitted) >= 24 and len({run["seed"] for run in fitted}) >= 2
    columns = {
        name: np.array([run[name] for run in fitted], dtype=float)
        for name in QUANTITIES
        if name in fitted[0]
    }
    points = Points("study", columns, {"embeddings": "in"}, tuple(range(len(fitted))))
    laws = fit_apart(points)
    assert sorted(laws) == [law["experts"] for law in document["laws"]] == [1, 16]
    for kept, one in zip(document["laws"], document["predictions"], strict=True):
        law = laws[kept["experts"]]
        assert law.fit.values == pytest.approx(kept["coefficients"], rel=1e-3)
        again = predict_run(law, one)
        assert again.loss == pytest.approx(one["predicted"]["loss"], rel=1e-4)
        assert again.low == pytest.approx(one["predicted"]["low"], rel=0.02)
        assert again.high == pytest.approx(one["predicted"]["high"], rel=0.02)


def test_the_held_out_runs_are_larger_than_all_others(document: dict[str, Any]) -> None:
    largest = [run for run in document["runs"] if run["run"].startswith(HELD_OUT)]
    others = [run for run in document["runs"] if run not in largest]
    for name in ("active_parameters", "flops"):
        assert min(run[name] for run in largest) > 1.9 * max(run[name] for run in others)
    measured = sorted(loss for one in document["predictions"] for loss in one["measured"])
    assert measured == sorted(run["loss"] for run in largest)


def test_pairs_follow_from_the_runs(document: dict[str, Any]) -> None:
    assert [one.as_json() for one in pairs_of(document["runs"])] == document["pairs"]
