"""Curves over compute: the same optimum as `moe predict`, leverage by a closed form."""

import numpy as np
import pytest

from benchmarks.laws.curves import best_curve, combinations, dial_values
from benchmarks.laws.fitted_law import FittedLaw, find_fitted
from benchmarks.laws.leverage_curve import leverage_curve, leverage_dial
from benchmarks.laws.predict import predict
from benchmarks.laws.registry import find_law


@pytest.mark.parametrize("name", ["chinchilla", "abnar", "ludziejewski", "krajewski", "clark"])
def test_the_best_is_that_of_predict(name: str) -> None:
    fitted = find_fitted(name)
    space = fitted.law.space
    assert space is not None
    flops = np.array([1e20, 3e22])
    curve = best_curve(fitted, space, combinations(dial_values(fitted)), flops)
    for place, budget in enumerate(flops):
        found = predict(fitted, float(budget))
        assert curve.losses[place, 0] == pytest.approx(found["loss"], rel=1e-6)
        assert curve.sizes[place, 0] == pytest.approx(found["best"][space.size], rel=2e-3)


def test_resamples_are_rows_of_their_own() -> None:
    published = find_fitted("besiroglu-2024")
    rows = np.array([[published.values[n] for n in published.law.coefficients]] * 3)
    rows[1, 0] += 0.1  # E
    fitted = FittedLaw(published.law, published.values, "made", rows)
    space = fitted.law.space
    assert space is not None
    losses = best_curve(fitted, space, [{}], np.array([1e21])).losses[0]
    assert losses[2] - losses[0] == pytest.approx(0.1)
    assert losses[[0, 1, 3]] == pytest.approx(losses[0])


def test_leverage_of_a_law_whose_experts_multiply_the_size() -> None:
    """With N experts^0.5 in place of N, a sparse model is a dense one of other FLOPs.

    L = E + A / (N sqrt(X))^a + B / D^b has its optimum at a loss that C X^h gives as well, with
    h = 0.5 b / (a + b) x (a + b) / b = 0.5 for a = b.
    """
    law = find_law("E + A / (active_parameters * experts**0.5)**alpha + B / tokens**alpha2")
    values = {"E": 1.5, "A": 400.0, "B": 400.0, "alpha": 0.3, "alpha2": 0.3}
    ranges = {"experts": (1.0, 16.0)}
    fitted = FittedLaw(law, values, "made", None, ranges, {"experts": (1.0, 4.0, 16.0)})
    assert leverage_dial(fitted) == "experts"
    curve = leverage_curve(fitted, "experts", 1e21)
    assert curve.leverage[:, 0] == pytest.approx([1.0, 2.0, 4.0], rel=5e-3)
