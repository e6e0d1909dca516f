"""Zhao et al. 2025: the best active experts and shared part do not depend on the scale."""

import pytest

from benchmarks.laws.fitted_law import find_fitted
from benchmarks.laws.predict import predict


@pytest.mark.parametrize("flops", [1e20, 1e24])
def test_the_best_dials_are_those_next_to_the_closed_form(flops: float) -> None:
    """G* = sqrt(f / e) = 6.8 and S* = -n / (2 m) = 0.31."""
    best = predict(find_fitted("tencent"), flops)["best"]
    assert best["active_experts"] == 8
    assert best["shared_ratio"] == 0.375 or best["shared_ratio"] == 0.25
    assert best["parameters"] == pytest.approx(32 * best["active_parameters"])
    assert 6 * best["active_parameters"] * best["tokens"] == pytest.approx(flops)
