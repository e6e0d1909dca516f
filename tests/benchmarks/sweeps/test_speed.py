"""What runs will take: scaled from measured runs, planned, or not known."""

from pathlib import Path

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.sweeps.measured_speed import MeasuredSpeed
from benchmarks.sweeps.planned_speed import PlannedSpeed
from benchmarks.sweeps.point import flops_per_token
from moe.config.experiment import Experiment
from moe.runs.reader import read_run
from tests.support.sweep_designs import make_design
from tests.support.synthetic_runs import make_run


def experiment(folder: Path, **energy: float) -> Experiment:
    one = make_design(folder, "").base
    return one.model_copy(update={"energy": one.energy.model_copy(update=energy)})


def test_a_measured_run_is_scaled_by_flops(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run", sparse=True, tokens_per_s=1000.0, joules=500.0))
    one = experiment(tmp_path, price_per_device_hour=3.0)
    cost = MeasuredSpeed([run.path]).cost(one)
    flops = 10 * 4 * 32 * flops_per_token(one)
    seconds = flops / (1000.0 * 13.2e6)
    assert cost.seconds == pytest.approx(seconds)
    assert cost.joules == pytest.approx(500.0 * flops / (run.tokens * 13.2e6))
    assert cost.money is not None


def test_the_nearest_run_speaks(tmp_path: Path) -> None:
    near = {"training_flops_per_token": 5e5, "total_parameters": 1, "active_parameters": 1}
    for name, changes in {"far": {}, "near": {"ledger": near}}.items():
        speed = 1e3 if name == "far" else 1e5
        make_run(tmp_path / name, sparse=True, tokens_per_s=speed, changes=changes)
    one = experiment(tmp_path)
    cost = MeasuredSpeed([tmp_path / "far", tmp_path / "near"]).cost(one)
    assert cost.seconds == pytest.approx(1280 * flops_per_token(one) / (1e5 * 5e5))
    assert cost.money is None


def test_a_run_without_a_meter_leaves_joules_open(tmp_path: Path) -> None:
    make_run(tmp_path / "sweep" / "runs" / "run", sparse=True, joules=None)
    make_run(tmp_path / "sweep" / "runs" / "stopped", sparse=True, changes={"status": "stopped"})
    (tmp_path / "sweep" / "sweep.json").write_text("{}")
    cost = MeasuredSpeed([tmp_path / "sweep"]).cost(experiment(tmp_path))
    assert cost.joules is None
    assert cost.reason is not None
    assert "had no meter" in cost.reason
    assert cost.seconds is not None


def test_runs_without_speed_are_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "run", sparse=True, changes={"tokens_per_s": None})
    with pytest.raises(BenchmarkError, match="no run with a measured speed"):
        MeasuredSpeed([tmp_path / "run"])


def test_planned_costs_grow_with_steps_and_know_prices(tmp_path: Path) -> None:
    speed = PlannedSpeed("h100", 1)
    one = experiment(tmp_path, price_per_device_hour=2.0)
    twice = one.model_copy(update={"train": one.train.model_copy(update={"steps": 20})})
    first, second = speed.cost(one), speed.cost(twice)
    assert first.seconds is not None
    assert second.seconds == pytest.approx(2 * first.seconds)
    assert first.joules is not None
    assert first.money is not None
    assert first.money >= 2.0 * first.seconds / 3600
    assert speed.cost(experiment(tmp_path)).money is None


def test_planned_joules_are_without_pue(tmp_path: Path) -> None:
    """As a run's meter counts them, whatever the site; the facility's stay in the money."""
    speed = PlannedSpeed("h100", 1)
    plain, double = (
        speed.cost(experiment(tmp_path, pue=pue, price_per_kwh=1.0)) for pue in (1.0, 2.0)
    )
    unstated = speed.cost(experiment(tmp_path))
    assert plain.joules is not None
    assert double.joules == pytest.approx(plain.joules)
    assert unstated.joules == pytest.approx(plain.joules)
    assert plain.money is not None
    assert double.money == pytest.approx(2 * plain.money)


def test_what_cannot_be_planned_has_a_reason(tmp_path: Path) -> None:
    text = "[axes]\nhidden_size = 65536\nnum_layers = 100\nhead_dim = 128"
    from benchmarks.sweeps.expand import expand

    (one,) = expand(make_design(tmp_path, text), PlannedSpeed("h100", 1)).points
    assert one.cost.seconds is None
    assert one.cost.reason
