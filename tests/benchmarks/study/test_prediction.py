"""Intervals of runs that have not run, on runs of a known law."""

import numpy as np
import pytest

from benchmarks.study.prediction import (
    Outcome,
    Prediction,
    outcomes,
    predict_run,
    root_mean_squared_error,
)
from tests.benchmarks.study.made_laws import losses_of, made_law

LARGEST = {"active_parameters": 3.3e5, "tokens": 4e6}
NOISE = 0.01


def test_a_new_runs_loss_falls_into_the_interval() -> None:
    """95%: of 60 new runs beside 12 laws, 52 at least and not all intervals hold everything."""
    truth = float(losses_of(np.array([3.3e5]), np.array([4e6]))[0])
    inside, widths = 0, []
    for seed in range(12):
        found = predict_run(made_law(NOISE, seed), LARGEST)
        new = truth * np.exp(np.random.default_rng(100 + seed).normal(0, NOISE, 5))
        inside += int(((found.low <= new) & (new <= found.high)).sum())
        widths.append(np.log(found.high / found.low))
    assert inside >= 52
    # Not wide for nothing: noise alone asks for four standard deviations.
    assert 3.5 * NOISE < np.median(widths) < 12 * NOISE


def test_the_interval_holds_the_noise_of_runs_and_not_of_the_law_alone() -> None:
    quiet, noisy = (predict_run(made_law(noise, 0), LARGEST) for noise in (0.001, 0.02))
    assert quiet.low < quiet.loss < quiet.high
    assert noisy.high - noisy.low > 5 * (quiet.high - quiet.low)


def test_outcomes_pair_predictions_with_runs_of_their_experts() -> None:
    sizes = {"active_parameters": 5.0, "parameters": 9.0, "tokens": 7.0, "flops": 8.0}
    rows = [
        {"experts": experts, "loss": loss, **sizes}
        for experts, loss in ((1, 3.0), (16, 2.5), (1, 3.2), (16, 2.9))
    ]
    predictions = {1: Prediction(3.3, 3.05, 3.4), 16: Prediction(2.7, 2.4, 3.0)}
    dense, sparse = outcomes(predictions, rows)
    assert (dense.measured, sparse.measured) == ((3.0, 3.2), (2.5, 2.9))
    assert (dense.inside, sparse.inside) == (1, 2)
    assert dense.error == pytest.approx(0.2)
    assert isinstance(dense, Outcome) and dense.as_json()["inside"] == 1


def test_the_error_of_a_law_at_other_runs() -> None:
    law = made_law(0.0001, 0)
    columns = {name: np.array([value]) for name, value in LARGEST.items()}
    exact = losses_of(columns["active_parameters"], columns["tokens"])
    assert root_mean_squared_error(law, columns, exact) < 1e-3
    assert root_mean_squared_error(law, columns, 1.1 * exact) == pytest.approx(0.0953, abs=1e-3)
