"""Intervals, what points cannot tell, errors left out, comparison."""

import numpy as np
import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.laws.compare import comparison, fit_law_to, fit_laws
from benchmarks.laws.fitting.bootstrap import bootstrap
from benchmarks.laws.fitting.extrapolation import leave_one_scale_out, leave_one_sparsity_out
from benchmarks.laws.fitting.identifiability import identifiability
from benchmarks.laws.fitting.penalty import PENALTIES
from benchmarks.laws.fitting.profile import profile_intervals
from benchmarks.laws.registry import LAWS
from tests.benchmarks.laws.test_fit import fitted
from tests.support.law_points import made_points, true_values


@pytest.mark.parametrize("loss", PENALTIES)
def test_intervals_hold_the_truth_about_as_often_as_they_say(loss: str) -> None:
    """12 draws, 95% intervals of two coefficients: 23 of 24 are expected, fewer than 18 are not."""
    truth = true_values(LAWS["chinchilla"])
    held = {"bootstrap": 0, "profile": 0}
    for seed in range(12):
        fit = fitted(made_points("chinchilla", 0.004, seed), "chinchilla", loss)
        profile = profile_intervals(fit)
        resampled = dict(
            zip(fit.law.coefficients, bootstrap(fit, resamples=60).intervals(), strict=True)
        )
        for name in ("alpha", "E"):
            low, high = profile[name]
            assert low is not None
            assert high is not None
            held["profile"] += low <= truth[name] <= high
            low, high = resampled[name]
            held["bootstrap"] += low <= truth[name] <= high
    assert min(held.values()) >= 18, held


def test_profile_of_squares_is_the_parabola_s() -> None:
    """For little noise the profile is that of the linearized fit: 1.96 standard errors."""
    fit = fitted(made_points("chinchilla", 1e-4), "chinchilla", "squared")
    _, slopes = fit.problem.with_slopes(fit.vector[None])
    covariance = fit.spread.variance * np.linalg.inv(slopes[0].T @ slopes[0])
    low, high = profile_intervals(fit)["alpha"]
    assert low is not None
    assert high is not None
    place = fit.law.coefficients.index("alpha")
    assert (high - low) / 2 == pytest.approx(1.96 * covariance[place, place] ** 0.5, rel=0.02)


def test_what_identifies_every_coefficient_flags_none() -> None:
    found = fit_law_to(made_points("chinchilla", 0.002), "chinchilla", resamples=60).document
    assert found["unidentified"] == []
    assert found["identifiability"]["directions"] == []
    conditions = found["identifiability"]
    assert conditions["scaled_condition_number"] < conditions["condition_number"] / 3


def test_one_granularity_cannot_tell_its_terms_apart() -> None:
    design = {
        "parameters": np.geomspace(1e9, 1e11, 6),
        "tokens": np.geomspace(8e9, 1.3e11, 6),
        "granularity": [8],
    }
    points = made_points("krajewski", 0.001, design=design)
    found = fit_law_to(points, "krajewski", resamples=40).document
    assert set(found["unidentified"]) == {"a", "g", "gamma"}
    assert [found["intervals"][name] for name in ("a", "g", "gamma")] == [None] * 3
    assert found["identifiability"]["condition_number"] is None
    assert all(d["half_width"] is None for d in found["identifiability"]["directions"])


def test_tokens_in_proportion_to_size_cannot_tell_exponents_apart() -> None:
    points, exact = made_points("chinchilla", 0.001), made_points("chinchilla")
    noise = points.columns["loss"] / exact.columns["loss"]
    points.columns["tokens"][:] = 20 * points.columns["parameters"]
    truth = true_values(LAWS["chinchilla"])
    points.columns["loss"][:] = LAWS["chinchilla"].predict(points.columns, truth) * noise
    fit = fitted(points, "chinchilla")
    found = identifiability(fit, bootstrap(fit, resamples=40))
    assert {"A", "B"} & set(found.unidentified)
    assert found.directions


def test_e_max_of_ludziejewski_s_own_design_is_not_identified() -> None:
    """The reason to report intervals of predictions: the coefficients move, the losses do not."""
    points = made_points("ludziejewski", 0.005)
    found = fit_law_to(points, "ludziejewski", resamples=60).document
    assert "E_max" in found["unidentified"]
    assert found["residuals"]["rms_log"] < 0.006


@pytest.mark.parametrize("name", ["krajewski", "abnar"])
def test_left_out_groups_are_predicted_within_the_noise_if_the_law_is_true(name: str) -> None:
    fit = fitted(made_points(name, 0.002), name)
    scale, sparsity = leave_one_scale_out(fit), leave_one_sparsity_out(fit)
    assert scale is not None
    assert sparsity is not None
    for left_out in (scale, sparsity):
        assert sum(g.points for g in left_out.groups) == fit.residuals.size
        assert all(0.001 < g.rms_log_error < 0.006 for g in left_out.groups)
        assert left_out.outermost.high == fit.problem.columns[left_out.column].max()


def test_a_wrong_law_fails_where_it_was_not_fitted() -> None:
    points = made_points("abnar", 0.001)
    documents = comparison(
        fit_laws(points, ["chinchilla", "abnar", "E + A / parameters**alpha"], resamples=40)
    )
    rows = {row["law"]: row for row in documents["comparison"]}
    assert documents["comparison"][0]["law"] == "abnar"
    assert rows["abnar"]["delta_aicc"] == 0
    assert rows["chinchilla"]["delta_aicc"] > 100
    assert rows["chinchilla"]["largest_scale_rms_log"] > 5 * rows["abnar"]["largest_scale_rms_log"]
    assert rows["chinchilla"]["sparsest_rms_log"] > 5 * rows["abnar"]["sparsest_rms_log"]


def test_needless_coefficients_cost_in_aicc() -> None:
    points = made_points("chinchilla", 0.002, seed=5)
    more = "E + A / parameters**alpha + B / tokens**beta + F / (parameters * tokens)**phi"
    found = comparison(fit_laws(points, ["chinchilla", more], resamples=20))
    assert found["comparison"][0]["law"] == "chinchilla"


def test_laws_of_different_targets_do_not_compare() -> None:
    with pytest.raises(BenchmarkError, match="leverage and of loss"):
        comparison(fit_laws(made_points("chinchilla"), ["chinchilla", "ling"], resamples=20))
