"""Structure of residuals is found where it is, and not where it is not."""

import numpy as np
import pytest
from scipy.stats import kruskal

from benchmarks.laws.compare import fit_law_to
from benchmarks.laws.residual_trends import residual_trends
from benchmarks.laws.tables import residual_lines
from tests.support.law_points import made_points


def test_a_law_without_a_term_for_sparsity_leaves_structure() -> None:
    one = fit_law_to(made_points("abnar", 0.002), "chinchilla", resamples=20)
    trends = {trend.column: trend for trend in one.trends}
    assert trends["sparsity"].found
    assert one.document["residuals"]["structure"]
    lines = residual_lines(one.document)
    assert any(
        line.startswith("The law's form misses something: residuals change with") for line in lines
    )
    groups = trends["sparsity"].groups
    assert [group.low for group in groups] == [0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98]


def test_the_true_law_leaves_none() -> None:
    for seed in range(3):
        one = fit_law_to(made_points("abnar", 0.002, seed), "abnar", resamples=20)
        assert not any(trend.found for trend in one.trends)
        assert residual_lines(one.document) == [
            "Residuals show no structure along parameters, tokens, sparsity."
        ]


def test_rounding_is_no_structure() -> None:
    one = fit_law_to(made_points("chinchilla"), "chinchilla", resamples=20)
    assert one.document["residuals"]["structure"] == []


def test_the_test_is_that_of_kruskal_and_wallis() -> None:
    random = np.random.default_rng(0)
    column = np.repeat([1.0, 2.0, 4.0], [10, 20, 30])
    residuals = random.normal(size=60) + 0.5 * np.log(column)
    trend = residual_trends({"tokens": column}, residuals)[0]
    expected = kruskal(*(residuals[column == value] for value in (1, 2, 4)))
    assert trend.p_value == pytest.approx(expected.pvalue)
    assert trend.share == pytest.approx((expected.statistic - 2) / 57)


def test_columns_of_one_value_or_of_single_points_are_not_looked_at() -> None:
    column = {"tokens": np.ones(9), "parameters": np.arange(1.0, 5.0).repeat([1, 2, 2, 1])}
    assert residual_trends({"tokens": column["tokens"]}, np.arange(9.0)) == ()
    assert residual_trends({"parameters": column["parameters"]}, np.arange(6.0)) == ()
