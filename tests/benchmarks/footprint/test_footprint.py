"""Carbon, water and money by hand, and the table they come from."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.footprint import footprint
from benchmarks.footprint.carbon_intensity import grid_zone, grid_zones
from benchmarks.published.rows import published_rows
from benchmarks.report.write import write_report
from moe.runs.reader import read_run
from moe.runs.run import Run
from tests.support.synthetic_runs import make_run


def run_with(root: Path, **energy: Any) -> Run:
    """3.6 MJ, one device for an hour, 4.25 nats/token at a vocabulary of 4096, 819,200 tokens."""
    return read_run(
        make_run(
            root / f"run{len(list(root.iterdir()))}",
            sparse=False,
            final_loss=4.25,
            joules=3.6e6,
            energy=energy,
            changes={"wall_time_s": 3600.0},
        )
    )


def test_carbon_by_hand(tmp_path: Path) -> None:
    """1 kWh x PUE 1.5 x 56 g/kWh (France 2023) = 84 g."""
    carbon = footprint.emissions(run_with(tmp_path, region="FRA", pue=1.5))
    assert carbon.value == pytest.approx(84.0)
    assert carbon.kind == "modelled"
    assert "FRA 56 gCO2e/kWh (2023" in carbon.source
    assert carbon.boundary == "facility"


def test_own_value_and_water(tmp_path: Path) -> None:
    run = run_with(tmp_path, carbon_intensity=10.0, water_litres_per_kwh=1.8)
    assert footprint.emissions(run).value == pytest.approx(10.0)
    assert footprint.water(run).value == pytest.approx(1.8)


def test_money_by_hand(tmp_path: Path) -> None:
    """1 h x 2.5 + 1 kWh x 2 (PUE) x 0.3 = 3.1."""
    run = run_with(tmp_path, price_per_device_hour=2.5, price_per_kwh=0.3, pue=2.0, currency="USD")
    money = footprint.price(run)
    assert (money.value, money.unit) == (pytest.approx(3.1), "USD")
    assert footprint.per_token(money, run).value == pytest.approx(3.1 / 819_200)
    learned = 8.31777 - 4.25  # ln 4096
    assert footprint.per_nat(money, run).value == pytest.approx(3.1 / learned, rel=1e-5)


def test_nothing_stated_is_unknown_with_the_reason(tmp_path: Path) -> None:
    run = run_with(tmp_path)
    for quantity in (footprint.emissions, footprint.water, footprint.price):
        measurement = quantity(run)
        assert measurement.value is None
        assert "stated" in (measurement.reason or "")


def test_worse_than_guessing_has_no_price_per_nat(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "a", sparse=False, final_loss=9.0))
    assert "no better than guessing" in (
        footprint.per_nat(run.energy("total", "J"), run).reason or ""
    )


def test_stated_replaces_the_runs_own(tmp_path: Path) -> None:
    run = run_with(tmp_path, region="FRA")
    assert footprint.emissions(
        footprint.with_assumptions(run, {"region": "POL"})
    ).value == pytest.approx(661.9)
    own = footprint.with_assumptions(run, {"carbon_intensity": 5.0, "pue": None})
    assert footprint.emissions(own).value == pytest.approx(5.0)


def test_bad_assumptions_are_one_line(tmp_path: Path) -> None:
    run = run_with(tmp_path)
    with pytest.raises(BenchmarkError, match="energy.pue = 0.5: .* greater than or equal to 1"):
        footprint.with_assumptions(run, {"pue": 0.5})
    with pytest.raises(BenchmarkError, match="'US-XX': no such zone: did you mean US-"):
        footprint.with_assumptions(run, {"region": "US-XX"})
    with pytest.raises(BenchmarkError, match="did you mean DEU"):
        grid_zone("germany")


def test_a_run_of_bad_assumptions_hides_no_other(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    good = run_with(tmp_path / "r").path
    for name, energy, fault in (
        ("a", {"price_per_kwh": -1}, "energy.price_per_kwh = -1"),
        ("b", {"later_key": 1}, "unknown key energy.later_key"),
        ("c", {"region": "Atlantis"}, "'Atlantis': no such zone"),
    ):
        bad = make_run(tmp_path / name, sparse=False, energy=energy)
        runs, [left_out] = footprint.read_runs_under([bad, good], {"pue": 1.5})
        assert [run.path for run in runs] == [good]
        assert left_out.path == bad
        assert left_out.reason.startswith(f"{bad}: ") and fault in left_out.reason
        with pytest.raises(BenchmarkError, match="energy.pue = 0.5"):
            footprint.read_runs_under([bad, good], {"pue": 0.5})
        with pytest.raises(BenchmarkError, match=f"^{bad}: "):
            footprint.read_runs_under([bad], {})


def test_unlike_currencies_are_refused(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    runs = [
        run_with(tmp_path / "r", price_per_device_hour=1.0, currency=currency).path
        for currency in ("EUR", "USD")
    ]
    with pytest.raises(BenchmarkError, match="unlike currencies.*--currency"):
        write_report(runs, tmp_path / "out")


def test_every_zone_has_a_value_a_source_and_mostly_a_year() -> None:
    table = grid_zones()
    assert len(table) > 300
    for found in table.values():
        assert 1 <= found.gco2e_per_kwh <= 1500
        assert found.source
        assert found.year is None or 2018 <= found.year <= 2026
    assert grid_zone("aws:eu-north-1").gco2e_per_kwh == grid_zone("SWE").gco2e_per_kwh == 40.7
    assert grid_zone("azure:westus2").gco2e_per_kwh == grid_zone("us-wa").gco2e_per_kwh
    # eGRID2023: 394.769 lb/MWh.
    assert grid_zone("US-CA").gco2e_per_kwh == pytest.approx(394.769 * 0.45359237, abs=0.05)
    assert all(found.year is None for code, found in table.items() if code.startswith("gcp:"))


def test_published_energy_is_what_its_publications_give() -> None:
    """shared/reference/energy.md recomputed these from the publications."""
    joules = {
        row["model"]: float(row["energy_mwh"]) * 3.6e9 / float(row["tokens"])
        for row in published_rows("training_energy")
    }
    assert joules["OLMoE 1B-7B"] == pytest.approx(0.039, abs=5e-4)
    assert joules["Llama 3.1 405B"] == pytest.approx(4.98, abs=5e-3)
    assert joules["DeepSeek-V3"] == pytest.approx(0.454, abs=5e-4)
    assert all(row["source"] and row["method"] for row in published_rows("training_energy"))


def test_published_speed_rows_are_consistent() -> None:
    """Where a row has all of them, batch x sequence / (step x GPUs) is its tokens/s within 2%."""
    keys = ("gbs", "seq_len", "step_s", "gpus", "tokens_per_s_per_gpu")
    rows = published_rows("training_speed")
    assert all(row["source"] for row in rows)
    complete = [[float(row[key]) for key in keys] for row in rows if all(row[k] for k in keys)]
    assert len(complete) >= 5
    for batch, seq_len, step_s, gpus, rate in complete:
        assert batch * seq_len / step_s / gpus == pytest.approx(rate, rel=0.02)
