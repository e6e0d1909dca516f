"""Runs from targets and budgets: one layout's costs, failures counted."""

from datetime import UTC, datetime
from math import exp, sqrt

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.planning.budget import RunPlan, RunRequest, run_plan
from benchmarks.planning.failures import Reliability
from benchmarks.planning.layout_text import parse_layout
from moe.config.energy import EnergyConfig
from parallel.planner.energy import Estimate
from parallel.planner.prediction import LayoutPrediction
from tests.benchmarks.planning.jobs import planner

START = datetime(2026, 12, 1, tzinfo=UTC)
PRICED = EnergyConfig(price_per_device_hour=2.0, carbon_intensity=100.0, currency="USD")
GPUS = 64


@pytest.fixture(scope="module")
def one() -> LayoutPrediction:
    plans = planner("mixtral-8x7b", GPUS)
    return plans.predict(plans.workload(parse_layout("tp=2,pp=2,ep=8")))


def value(run: RunPlan, name: str) -> Estimate:
    each = run.quantities[name]
    assert each is not None
    return each


def test_a_target_in_tokens_costs_what_its_steps_cost(one: LayoutPrediction) -> None:
    run = run_plan(RunRequest(target_tokens=1e12), one, PRICED, START)
    overhead = Reliability().overhead(GPUS)
    seconds = 1e12 / (one.tokens_per_second * GPUS) * overhead
    assert run.bound_by == "tokens"
    assert value(run, "tokens") == Estimate(value=1e12, low=1e12, high=1e12)
    assert value(run, "seconds").value == pytest.approx(seconds)
    assert value(run, "gpu_hours").value == pytest.approx(seconds * GPUS / 3600)
    assert value(run, "money").value == pytest.approx(2 * seconds * GPUS / 3600)
    assert one.energy is not None
    joules = one.energy.per_token()["facility"].value * 1e12 * overhead
    assert value(run, "joules").value == pytest.approx(joules)
    assert value(run, "gco2").value == pytest.approx(joules / 3.6e6 * 100)
    assert run.ends is not None
    assert (run.ends - START).total_seconds() == pytest.approx(seconds, rel=1e-6)
    low, high = (bound / one.step_seconds for bound in one.interval)
    assert value(run, "seconds").low == pytest.approx(low * seconds)
    assert value(run, "seconds").high == pytest.approx(high * seconds)
    assert value(run, "joules").high / joules > high


def test_the_tightest_budget_binds_and_what_it_fixes_is_exact(one: LayoutPrediction) -> None:
    run = run_plan(RunRequest(gpu_hours=1000.0, money=1e9), one, PRICED, START)
    assert run.bound_by == "gpu_hours"
    hours = value(run, "gpu_hours")
    assert hours.low == hours.value == hours.high == pytest.approx(1000.0)
    seconds = value(run, "seconds")
    assert seconds.low == seconds.high == pytest.approx(1000 * 3600 / GPUS)
    tokens = value(run, "tokens")
    low, high = (bound / one.step_seconds for bound in one.interval)
    assert tokens.low / tokens.value == pytest.approx(1 / high)
    assert tokens.high / tokens.value == pytest.approx(1 / low)


@pytest.mark.parametrize("name", ["tokens", "gpu_hours", "joules", "money", "gco2"])
def test_every_budget_buys_what_its_run_costs(one: LayoutPrediction, name: str) -> None:
    """A run of a target spends some of each; that as a budget gives the same run."""
    first = run_plan(RunRequest(target_tokens=1e11), one, PRICED, START)
    field = "target_tokens" if name == "tokens" else name
    again = run_plan(RunRequest(**{field: value(first, name).value}), one, PRICED, START)
    for other in first.quantities:
        assert value(again, other).value == pytest.approx(value(first, other).value)


def test_money_counts_power_where_it_is_paid(one: LayoutPrediction) -> None:
    both = PRICED.model_copy(update={"price_per_kwh": 0.2})
    run = run_plan(RunRequest(target_tokens=1e11), one, both, START)
    hours, kwh = value(run, "gpu_hours").value, value(run, "joules").value / 3.6e6
    assert value(run, "money").value == pytest.approx(2 * hours + 0.2 * kwh)


def test_a_budget_without_its_price_is_refused(one: LayoutPrediction) -> None:
    nothing = EnergyConfig()
    with pytest.raises(BenchmarkError, match="--budget-money: no price is known"):
        run_plan(RunRequest(money=1.0), one, nothing, START)
    with pytest.raises(BenchmarkError, match="--budget-gco2: no grid is known"):
        run_plan(RunRequest(gco2=1.0), one, nothing, START)
    free = EnergyConfig(carbon_intensity=0.0)
    with pytest.raises(BenchmarkError, match="a budget of gco2 never ends"):
        run_plan(RunRequest(gco2=1.0), one, free, START)
    run = run_plan(RunRequest(target_tokens=1e9), one, nothing, None)
    assert run.quantities["money"] is None
    assert run.quantities["gco2"] is None


def test_the_checkpoint_interval_is_the_one_that_costs_least() -> None:
    reliability = Reliability(gpu_mtbf_hours=50_000, checkpoint_seconds=60, restart_seconds=600)
    mtbf = 50_000 * 3600 / 16_384
    assert reliability.mtbf_seconds(16_384) == pytest.approx(mtbf)
    best = reliability.interval_seconds(16_384)
    # Young's first order, and Daly's expected wall time around the optimum.
    assert best == pytest.approx(sqrt(2 * 60 * mtbf), rel=0.1)

    def overhead(interval: float) -> float:
        return mtbf * exp(600 / mtbf) * (exp((interval + 60) / mtbf) - 1) / interval

    assert reliability.overhead(16_384) == pytest.approx(overhead(best))
    assert overhead(best) < min(overhead(0.9 * best), overhead(1.1 * best))
    assert 1.1 < overhead(best) < 1.3
    assert reliability.overhead(64) < 1.01


def test_failures_faster_than_restarts_are_refused() -> None:
    with pytest.raises(BenchmarkError, match="no run ends: raise --gpu-mtbf-hours"):
        Reliability(gpu_mtbf_hours=1.0).overhead(16_384)
