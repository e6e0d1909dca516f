"""Slopes of a problem: coefficients that change no common term are moved together."""

import numpy as np
import pytest

from benchmarks.laws.fitting.problem import Problem
from benchmarks.laws.law import Law
from benchmarks.laws.law_columns import law_points
from benchmarks.laws.registry import LAWS, find_law
from tests.support.law_points import DESIGNS, made_points, true_values

OWN = "E + A / (active_parameters * experts**x)**alpha + B / tokens**beta - (tokens / 1e10)**y"


def problem_of(law: Law, points_of: str) -> tuple[Problem, np.ndarray]:
    brought = law_points(law, made_points(points_of, 0.01))
    problem = Problem(law, brought.columns, brought.target)
    if law.published or law.name in DESIGNS:
        values = true_values(law)
    else:
        values = {"E": 2.0, "A": 300.0, "B": 900.0, "alpha": 0.3, "beta": 0.3, "x": 0.2, "y": 0.01}
    return problem, problem.vector(np.array([[values[n] for n in law.coefficients]]))


@pytest.mark.parametrize("name", [*DESIGNS, OWN])
@pytest.mark.parametrize("exact", [True, False])
def test_slopes_are_those_of_one_coefficient_at_a_time(name: str, exact: bool) -> None:
    problem, vector = problem_of(find_law(name), name if name in DESIGNS else "ludziejewski")
    logs, slopes = problem.with_slopes(vector, exact=exact)
    assert logs == pytest.approx(problem.log_predicted(vector))
    for place in range(problem.num_coefficients):
        moved = vector.astype(complex)
        moved[0, place] += 1e-30j
        terms, _, offset = problem.basis(moved[:, problem.num_linear :])
        total = np.einsum("bm,bmn->bn", moved[:, : problem.num_linear], terms) + offset
        expected = (total if problem.law.logarithmic else np.log(total)).imag / 1e-30
        tolerance = 1e-10 if exact else 1e-4
        scale = max(float(np.abs(expected).max()), 1e-12)
        assert slopes[0, :, place] / scale == pytest.approx(expected[0] / scale, abs=tolerance)


@pytest.mark.parametrize(
    ("name", "evaluations"), [("chinchilla", 1), ("abnar", 2), ("ludziejewski", 5)]
)
def test_few_evaluations_give_all_slopes(name: str, evaluations: int) -> None:
    problem, vector = problem_of(LAWS[name], name)
    problem.with_slopes(vector)
    calls = []
    basis = problem.basis
    problem.basis = lambda theta: calls.append(1) or basis(theta)  # type: ignore[method-assign,func-returns-value]
    problem.with_slopes(vector)
    assert len(calls) == 1 + evaluations
