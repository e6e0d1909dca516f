"""Starting at another hour: the mean over the run's own stretch, by hand."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.errors import BenchmarkError
from benchmarks.footprint.start_time import best_start, read_hourly
from moescale import app
from tests.support.synthetic_runs import make_run

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def hourly(path: Path, values: list[float]) -> Path:
    lines = [f"2026-06-01T{12 + i:02d}:00:00+00:00,{value}" for i, value in enumerate(values)]
    path.write_text("time,gco2e_per_kwh\n" + "\n".join(lines) + "\n")
    return path


def test_mean_is_weighted_by_time(tmp_path: Path) -> None:
    series = read_hourly(hourly(tmp_path / "h.csv", [100, 200, 400]))
    # 12:30 to 14:15: half an hour at 100, an hour at 200, a quarter at 400.
    mean = series.mean(NOON + timedelta(minutes=30), timedelta(minutes=105))
    assert mean == pytest.approx((0.5 * 100 + 1 * 200 + 0.25 * 400) / 1.75)
    assert series.mean(NOON, timedelta(0)) == 100


def test_best_start_within_reach(tmp_path: Path) -> None:
    series = read_hourly(hourly(tmp_path / "h.csv", [300, 300, 250, 60, 90, 10, 10]))
    two_hours = timedelta(hours=2)
    shift = best_start(series, NOON, two_hours, timedelta(hours=3))
    assert shift.intensity == 300
    assert shift.best_start == NOON + timedelta(hours=3)
    assert shift.best_intensity == 75
    assert shift.saved_fraction == pytest.approx(0.75)
    # With more patience the last two hours are reached, and nothing beyond the series.
    assert best_start(series, NOON, two_hours, timedelta(days=9)).best_intensity == 10


def test_a_run_outside_the_series_is_refused(tmp_path: Path) -> None:
    series = read_hourly(hourly(tmp_path / "h.csv", [1, 2]))
    with pytest.raises(BenchmarkError, match="covers 2026-06-01 12:00 to 2026-06-01 14:00"):
        series.mean(NOON, timedelta(hours=3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("when,gco2e_per_kwh\n2026-06-01,1\n", "no column time: it needs"),
        ("time,gco2e_per_kwh\n2026-06-01,x\n", "line 2: 'x' is no intensity"),
        ("time,gco2e_per_kwh\n2026-06-01,1,250\n", "line 2: 3 cells under 2 columns"),
        ("time,gco2e_per_kwh,zone\n2026-06-01,1\n", "line 2: 2 cells under 3 columns"),
        ("time,gco2e_per_kwh\n2026-06-01,1_0\n", "line 2: '1_0' is no intensity"),
        ("time,gco2e_per_kwh\n2026-06-01,1e300\n", "line 2: '1e300' is no intensity"),
        ("time,gco2e_per_kwh,time\n2026-06-01,1,2026-06-02\n", "two columns 'time'"),
        ('time,gco2e_per_kwh\n2026-06-01,"1\n', "line 2: not CSV"),
        ("time,gco2e_per_kwh\n2026-06-02,1\n2026-06-01,1\n", "growing times"),
        ("time,gco2e_per_kwh\n2026-06-02,1\n", "two or more rows"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "h.csv"
    path.write_text(text)
    with pytest.raises(BenchmarkError, match=message) as error:
        read_hourly(path)
    assert str(path) in str(error.value)


def test_command_says_what_a_later_start_saves(tmp_path: Path) -> None:
    """The made-up run starts at 10:00 and takes three minutes."""
    run = make_run(tmp_path / "a", sparse=False, joules=3.6e6)
    path = tmp_path / "h.csv"
    path.write_text(
        "time,gco2e_per_kwh\n2026-11-23T10:00,400\n2026-11-23T11:00,100\n2026-11-23T12:00,50\n"
    )
    arguments = ["carbon", str(run), "--hourly", str(path), "--within", "1", "--region", "FRA"]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0
    [row] = json.loads(result.stdout)
    assert row["emissions_gco2e"] == pytest.approx(56.0)
    assert (row["hourly_gco2e"], row["best_gco2e"]) == (pytest.approx(400), pytest.approx(100))
    assert row["best_start"] == "2026-11-23T11:00:00+00:00"
    assert row["saved_share"] == pytest.approx(0.75)
    shown = CliRunner().invoke(app, arguments).stdout
    for words in (
        "best start",
        "2026-11-23 11:00 UTC",
        "100 gCO2e",
        "75.0%",
        "model x FRA",
    ):
        assert words in " ".join(shown.split())


def test_command_lists_zones() -> None:
    result = CliRunner().invoke(app, ["carbon", "--zones", "--json"])
    rows = json.loads(result.stdout)
    assert {"zone": "FRA", "name": "France"}.items() <= rows[
        [r["zone"] for r in rows].index("FRA")
    ].items()
    assert "gCO2e/kWh" in CliRunner().invoke(app, ["carbon", "--zones"]).stdout
    refused = CliRunner().invoke(app, ["carbon"]).exception
    assert getattr(refused, "exit_code", None) == 2
    assert "--zones" in str(refused)
