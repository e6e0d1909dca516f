"""Leverage of laws and of minima whose answer is known."""

import numpy as np
import pytest

from benchmarks.study.ladder_curve import best_of_ladder
from benchmarks.study.leverage import leverage_of_laws, leverage_of_minima
from benchmarks.study.minima import Minimum, iso_flop_minima
from tests.benchmarks.study.made_laws import BUDGETS, LADDER, SIZES, made_law, made_points

GAIN = 1.3
"""A sparse model counts as one of 1.3 times size and tokens: 1.69 times the FLOPs."""


def test_leverage_of_laws() -> None:
    """At its best a model of gain g reaches what a dense one does at g^2 times the FLOPs."""
    fits = {1: made_law(0.002, 0), 16: made_law(0.002, 1, GAIN)}
    found = leverage_of_laws(fits, {1: LADDER, 16: LADDER}, [7e11])
    (one,) = found
    assert one.source == "laws" and one.experts == 16
    assert one.value == pytest.approx(GAIN**2, rel=0.05)
    assert one.interval is not None
    low, high = one.interval
    assert low < GAIN**2 < high and high / low < 1.3


def test_leverage_of_a_minimum_that_no_dense_model_reaches_is_null() -> None:
    fits = {1: made_law(0.002, 0)}
    losses = (1.0, 0.9, 1.0)
    beyond = Minimum(16, 7e11, (1e4, 2e4, 4e4), losses, 2e4, 0.9)
    (one,) = leverage_of_minima(fits, {1: LADDER}, [beyond])
    assert one.value is None and one.interval is None


def test_leverage_of_minima_of_runs() -> None:
    points = made_points(0.0002, 3, GAIN, experts=16)
    minima = iso_flop_minima(points, BUDGETS)
    found = leverage_of_minima({1: made_law(0.0002, 0)}, {1: LADDER}, minima)
    inner = [one for one in minima if one.best_loss is not None]
    assert len(found) == len(inner) >= 1
    for one in found:
        assert one.value == pytest.approx(GAIN**2, rel=0.05)


def test_minima_are_where_the_law_has_them() -> None:
    points = made_points(0.0, 0)
    best = best_of_ladder(made_law(0.0001, 0), LADDER, np.array(BUDGETS))
    inner = 0
    for place, one in enumerate(iso_flop_minima(points, BUDGETS)):
        assert one.active_parameters == pytest.approx(tuple(SIZES))
        if one.best_active_parameters is None or one.best_loss is None:
            continue
        inner += 1
        assert one.best_loss == pytest.approx(best.losses[place, 0], rel=2e-3)
        assert one.best_active_parameters == pytest.approx(
            best.active_parameters[place, 0], rel=0.15
        )
    assert inner


def test_a_best_size_at_the_edge_is_no_minimum() -> None:
    points = made_points(0.0, 0)
    few = points.take([i for i in range(30) if points.columns["active_parameters"][i] > 1e5])
    assert iso_flop_minima(few, BUDGETS) == []
    three = points.take([i for i in range(30) if points.columns["active_parameters"][i] > 6e4])
    (first, *_) = iso_flop_minima(three, BUDGETS)
    assert first.best_loss is None and len(first.losses) == 3
