"""A user's own form: what is computed, what is refused, and which coefficients are linear."""

import numpy as np
import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.laws.compare import fit_law_to
from benchmarks.laws.expression import MAX_LENGTH, evaluate, parse
from benchmarks.laws.own_form import own_law
from benchmarks.laws.registry import LAWS, find_law
from tests.benchmarks.laws.test_fit import fitted
from tests.support.law_points import made_points

CHINCHILLA = "E + A / parameters**alpha + B / tokens**beta"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * x", 7.0),
        ("-x**2", -9.0),
        ("(1 + x) / 2 - 1e1", -8.0),
        ("log(exp(x)) * +2", 6.0),
        ("2**x**0", 2.0),
    ],
)
def test_value(text: str, value: float) -> None:
    assert evaluate(parse(text), {"x": 3.0}) == pytest.approx(value)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "x.real",
        "x[0]",
        "(lambda: x)()",
        "[x for x in y]",
        "x if y else z",
        "x < 1",
        "'a' * 9",
        "True + x",
        "1j * x",
        "x ^ 2",
        "x % 2",
        "log(x, y)",
        "log(x=1)",
        "sin(x)",
        "log + x",
        "x := 1",
        "x + ",
        "",
        "+".join(["x"] * MAX_LENGTH),
        "-" * (MAX_LENGTH - 1) + "x",
        "(" * 240 + "x" + ")" * 240,
    ],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(BenchmarkError) as refused:
        own_law(text)
    assert "\n" not in str(refused.value)


def test_linear_coefficients_are_found() -> None:
    law = own_law(CHINCHILLA)
    assert [c.name for c in law.linear] == ["E", "A", "B"]
    assert [c.name for c in law.nonlinear] == ["alpha", "beta"]
    assert law.columns == ("parameters", "tokens")


def test_a_coefficient_used_twice_is_searched() -> None:
    law = own_law("E + A / parameters**alpha + A / tokens**beta")
    assert [c.name for c in law.linear] == ["E"]
    assert {c.name for c in law.nonlinear} == {"A", "alpha", "beta"}


def test_own_form_equals_the_named_law() -> None:
    points = made_points("chinchilla", 0.002)
    own, named = fitted(points, CHINCHILLA), fitted(points, "chinchilla")
    assert own.objective == pytest.approx(named.objective, rel=1e-9)
    assert own.values == pytest.approx(named.values, rel=1e-4)


def test_signs_and_divisors_are_kept() -> None:
    law = own_law("E - 2 * k / (1 + tokens**b)")
    columns = {"tokens": np.array([4.0])}
    assert law.predict(columns, {"E": 3.0, "k": 1.0, "b": 0.5})[0] == pytest.approx(3 - 2 / 3)


def test_exp_around_everything_makes_a_logarithmic_law() -> None:
    law = own_law("exp(a + b * log(parameters))")
    assert law.logarithmic
    assert [c.name for c in law.linear] == ["a", "b"]
    columns = {"parameters": np.array([100.0])}
    assert law.predict(columns, {"a": 0.0, "b": 0.5})[0] == pytest.approx(10)


def test_a_form_without_linear_coefficient_is_fitted() -> None:
    points = made_points("chinchilla", 0.002)
    fit = fitted(points, "(E + parameters**alpha) / E / E")
    assert fit.law.linear == ()
    assert np.isfinite(fit.objective)


def test_a_form_that_overflows_everywhere_is_refused() -> None:
    with pytest.raises(BenchmarkError, match=r"divide large columns \(parameters / 1e9\)"):
        fit_law_to(made_points("chinchilla"), "E + A * exp(b * parameters)", resamples=20)


def test_the_loss_is_no_column_of_its_own_law() -> None:
    with pytest.raises(BenchmarkError, match="loss is what it gives"):
        own_law("a + b * loss")


@pytest.mark.parametrize("text", ["1 + 2 * 3", "tokens * 2", "a + b"])
def test_a_form_needs_columns_and_coefficients(text: str) -> None:
    with pytest.raises(BenchmarkError, match=r"no (column|coefficient)"):
        own_law(text)


def test_unknown_name_lists_the_laws() -> None:
    with pytest.raises(BenchmarkError, match="no law has that name") as refused:
        find_law("chincilla")
    assert all(name in str(refused.value) for name in LAWS)
