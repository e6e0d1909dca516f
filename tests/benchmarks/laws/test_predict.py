"""The best sizes under a limit of FLOPs."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.laws.compare import comparison, fit_law_to, fit_laws
from benchmarks.laws.fitted_law import find_fitted
from benchmarks.laws.fitting.problem import Problem
from benchmarks.laws.fitting.profile_prediction import prediction_interval
from benchmarks.laws.predict import predict
from benchmarks.laws.registry import LAWS
from tests.benchmarks.laws.test_fit import fitted
from tests.support.law_points import made_points


def fitted_file(tmp_path: Path, name: str, seed: int = 0) -> Path:
    document = fit_law_to(made_points(name, 0.002, seed), name, resamples=40).document
    path = tmp_path / "law.json"
    path.write_text(json.dumps(document))
    return path


def test_chinchilla_s_optimum_is_the_closed_form() -> None:
    """N = G (C/6)^(beta / (alpha + beta)), G = (alpha A / (beta B))^(1 / (alpha + beta))."""
    found = predict(find_fitted("hoffmann-2022"), 5.76e23)
    v = LAWS["chinchilla"].published[1].values
    total = v["alpha"] + v["beta"]
    size = (v["alpha"] * v["A"] / (v["beta"] * v["B"])) ** (1 / total)
    size *= (5.76e23 / 6) ** (v["beta"] / total)
    assert found["best"]["parameters"] == pytest.approx(size, rel=1e-4)
    tokens = found["best"]["tokens"]
    assert 6 * found["best"]["parameters"] * tokens == pytest.approx(5.76e23)
    assert found["loss"] == pytest.approx(
        v["E"] + v["A"] / size ** v["alpha"] + v["B"] / tokens ** v["beta"]
    )
    assert found["interval"] is None


def test_intervals_hold_the_truth_about_as_often_as_they_say(tmp_path: Path) -> None:
    """10 draws, 95% intervals of the loss and of the best size: fewer than 14 of 20 are not due."""
    truth = predict(find_fitted("besiroglu-2024"), 1e20)
    held = profile_held = 0
    for seed in range(10):
        found = predict(find_fitted(str(fitted_file(tmp_path, "chinchilla", seed=seed))), 1e20)
        low, high = found["interval"]
        assert low < found["loss"] < high
        held += low < truth["loss"] < high
        low, high = found["best_intervals"]["parameters"]
        held += low < truth["best"]["parameters"] < high
        low, high = found["profile_interval"]
        assert low < found["loss"] < high
        profile_held += low < truth["loss"] < high
    assert held >= 14
    assert profile_held >= 7


@pytest.mark.parametrize("loss", ["squared", "huber", "lad"])
def test_profile_of_a_prediction_is_the_linear_one_s_for_little_noise(loss: str) -> None:
    fit = fitted(made_points("chinchilla", 2e-4), "chinchilla", loss)
    at = {"parameters": 1e10, "tokens": 2e11}
    columns = {n: np.append(c, at[n]) for n, c in fit.problem.columns.items()}
    problem = Problem(fit.law, columns, np.append(fit.problem.target, 2.0))
    vector = problem.vector(np.array([list(fit.values.values())]))
    logs, slopes = problem.with_slopes(vector)
    covariance = fit.spread.variance * np.linalg.inv(slopes[0, :-1].T @ slopes[0, :-1])
    error = (slopes[0, -1] @ covariance @ slopes[0, -1]) ** 0.5
    low, high = prediction_interval(fit, at)
    assert low is not None
    assert high is not None
    assert low < np.exp(logs[0, -1]) < high
    tolerance = 0.03 if loss == "squared" else 0.5  # the density at 0 is but counted
    assert np.log(high / low) / 2 == pytest.approx(1.96 * error, rel=tolerance)


def test_sizes_beyond_the_points_are_named(tmp_path: Path) -> None:
    law = find_fitted(str(fitted_file(tmp_path, "chinchilla")))
    assert predict(law, 2e19)["extrapolated"] == []
    assert predict(law, 1e25)["extrapolated"] == ["parameters", "tokens"]


def test_experts_are_chosen_among_the_fitted_ones(tmp_path: Path) -> None:
    found = predict(find_fitted(str(fitted_file(tmp_path, "ludziejewski"))), 1e20)
    assert found["best"]["experts"] == 32
    size, tokens = found["best"]["active_parameters"], found["best"]["tokens"]
    assert 6 * size * tokens == pytest.approx(1e20)


@pytest.mark.parametrize("name", ["clark", "krajewski", "abnar", "ludziejewski"])
def test_no_other_size_is_better(name: str) -> None:
    flops = 1e22
    law = find_fitted(name)
    found = predict(law, flops)
    space = law.law.space
    assert space is not None
    best = {n: np.array([v]) for n, v in found["best"].items()}
    for factor in (0.9, 0.99, 1.01, 1.1):
        moved = best | {space.size: best[space.size] * factor, "tokens": best["tokens"] / factor}
        if space.fixed_tokens is None:
            assert law.law.predict(moved, law.values)[0] >= found["loss"] * (1 - 1e-12)
    active = space.active(best)[0]
    tokens = space.fixed_tokens or best["tokens"][0]
    assert 6 * active * tokens == pytest.approx(flops)


def test_own_form_predicts(tmp_path: Path) -> None:
    form = "E + A / active_parameters**alpha + B / tokens**beta - k * log(experts)"
    document = fit_law_to(made_points("ludziejewski", 0.002), form, resamples=20).document
    path = tmp_path / "own.json"
    path.write_text(json.dumps(document))
    found = predict(find_fitted(str(path)), 1e20)
    assert found["law"] == form
    assert found["best"]["experts"] == 32


@pytest.mark.parametrize("flops", [0.0, -1.0, 1e300, float("nan"), float("inf")])
def test_impossible_flops_are_refused(flops: float) -> None:
    with pytest.raises(BenchmarkError, match="--flops"):
        predict(find_fitted("hoffmann-2022"), flops)


def test_a_law_without_sizes_is_refused() -> None:
    with pytest.raises(BenchmarkError, match="does not tell sizes from FLOPs alone"):
        predict(find_fitted("ling"), 1e21)


def test_files_that_hold_no_law_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "law.json"
    path.write_text("not json")
    with pytest.raises(BenchmarkError, match="law.json"):
        find_fitted(str(path))
    path.write_text(json.dumps([1]))
    with pytest.raises(BenchmarkError, match="not a fitted law"):
        find_fitted(str(path))
    two = comparison(fit_laws(made_points("chinchilla", 0.01), ["chinchilla"] * 2, resamples=20))
    path.write_text(json.dumps(two))
    with pytest.raises(BenchmarkError, match="it compares laws"):
        find_fitted(str(path))
    document = two["fits"][0]
    for change in (
        {"coefficients": {}},
        {"law": "nothing"},
        {"resamples": [[1]]},
        {"ranges": 3},
        {"data": {"loss": [1.0], "parameters": [1.0], "tokens": []}},
    ):
        path.write_text(json.dumps(document | change))
        with pytest.raises(BenchmarkError, match=r"damaged|no law has that name"):
            find_fitted(str(path))
    with pytest.raises(BenchmarkError, match="no such file, nor published coefficients"):
        find_fitted(str(tmp_path / "absent.json"))
