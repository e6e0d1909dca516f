"""Fits find what was put in, and the least of their objective."""

import numpy as np
import pytest
from scipy.optimize import minimize

from benchmarks.errors import BenchmarkError
from benchmarks.laws.fitting.fit import Fit, fit_law
from benchmarks.laws.fitting.penalty import HUBER_DELTA, PENALTIES, find_penalty
from benchmarks.laws.law_columns import law_points
from benchmarks.laws.points import Points
from benchmarks.laws.registry import LAWS, find_law
from tests.support.law_points import DESIGNS, made_points, true_values


def fitted(points: Points, name: str, loss: str = "huber") -> Fit:
    law = find_law(name)
    return fit_law(law, law_points(law, points), PENALTIES[loss])


@pytest.mark.parametrize("name", DESIGNS)
def test_exact_points_give_their_coefficients(name: str) -> None:
    """But for A_max of `ling`, whose term is 1 / 5e16: no point can show it."""
    law = LAWS[name]
    fit = fitted(made_points(name), name)
    expected = {n: v for n, v in true_values(law).items() if n != "A_max"}
    assert {n: fit.values[n] for n in expected} == pytest.approx(expected, rel=1e-6)
    assert fit.objective < 1e-20


def hoffmann_objective(vector: np.ndarray, points: Points) -> float:
    """The objective of Hoffmann et al. 2022 in their variables: a, b, e, alpha, beta."""
    a, b, e, alpha, beta = vector
    columns = points.columns
    terms = [
        a - alpha * np.log(columns["parameters"]),
        b - beta * np.log(columns["tokens"]),
        np.full(len(points), e),
    ]
    residuals = np.logaddexp.reduce(terms, axis=0) - np.log(columns["loss"])
    size = np.abs(residuals)
    inner = np.minimum(size, HUBER_DELTA)
    return float((inner**2 / 2 + HUBER_DELTA * (size - inner)).sum())


@pytest.mark.parametrize("noise", [0.002, 0.01])
def test_no_start_of_hoffmann_s_own_method_is_better(noise: float) -> None:
    points = made_points("chinchilla", noise)
    fit = fitted(points, "chinchilla")
    ours = np.log([fit.values["A"], fit.values["B"], fit.values["E"]])
    vector = np.array([*ours, fit.values["alpha"], fit.values["beta"]])
    assert hoffmann_objective(vector, points) == pytest.approx(fit.objective, rel=1e-9)
    starts = [(5.0, 5.0, 0.5, 0.5, 0.5), (10.0, 10.0, 0.5, 0.5, 0.5), tuple(vector * 1.02)]
    for start in starts:
        other = minimize(hoffmann_objective, start, args=(points,), method="BFGS")
        assert fit.objective <= other.fun * 1.0000001


@pytest.mark.parametrize("loss", PENALTIES)
def test_no_neighbour_is_better(loss: str) -> None:
    fit = fitted(made_points("chinchilla", 0.005, seed=3), "chinchilla", loss)
    random = np.random.default_rng(0)
    for step in (1e-2, 1e-4, 1e-6):
        for _ in range(50):
            move = step * random.standard_normal(fit.vector.size)
            other = Fit(fit.law, fit.problem, fit.penalty, fit.vector + move)
            assert other.objective >= fit.objective * (1 - 1e-9)


def test_least_absolute_deviations_pass_through_as_many_points_as_coefficients() -> None:
    fit = fitted(made_points("chinchilla", 0.005, seed=3), "chinchilla", "lad")
    assert (np.abs(fit.residuals) < 1e-9).sum() == len(fit.values)


def test_robust_losses_bear_outliers_that_squares_do_not() -> None:
    points = made_points("chinchilla", 0.001)
    points.columns["loss"][::15] *= 1.2
    truth = true_values(LAWS["chinchilla"])["E"]
    error = {
        loss: abs(fitted(points, "chinchilla", loss).values["E"] - truth) for loss in PENALTIES
    }
    assert error["huber"] < error["squared"] / 3
    assert error["lad"] < error["squared"] / 3


def test_the_same_points_give_the_same_fit() -> None:
    points = made_points("krajewski", 0.002)
    assert fitted(points, "krajewski").values == fitted(points, "krajewski").values


def test_order_of_points_does_not_matter() -> None:
    points = made_points("chinchilla", 0.002)
    other = points.take(np.random.default_rng(0).permutation(len(points)).tolist())
    expected = fitted(points, "chinchilla").values
    assert fitted(other, "chinchilla").values == pytest.approx(expected, rel=1e-4)


def test_many_points_are_fitted_from_a_part_of_them() -> None:
    design = {"parameters": np.geomspace(1e7, 1e10, 60), "tokens": np.geomspace(1e9, 1e12, 40)}
    points = made_points("chinchilla", 0.002, design=design)
    fit = fitted(points, "chinchilla")
    assert fit.residuals.size == 2400
    assert fit.values["E"] == pytest.approx(true_values(LAWS["chinchilla"])["E"], abs=0.01)


def test_too_few_points_are_refused() -> None:
    points = made_points("chinchilla").take(range(5))
    with pytest.raises(BenchmarkError, match="5 coefficients and there are 5 points: at least 6"):
        fitted(points, "chinchilla")


def test_unknown_loss_names_those_there_are() -> None:
    with pytest.raises(BenchmarkError, match="--loss mse: none of huber, lad, squared"):
        find_penalty("mse")
