"""Rows and table of `moe carbon`: emissions of runs, and the shipped grid zones."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.footprint import footprint
from benchmarks.footprint.carbon_intensity import grid_zones
from benchmarks.footprint.start_time import best_start, read_hourly
from moe.runs.reader import read_runs
from moe.runs.run import Run
from parallel.measurement.number_text import readable
from parallel.measurement.units import JOULES_PER_KWH

Row = dict[str, Any]


def zone_rows() -> list[Row]:
    """Return the shipped table: code, place, gCO2e/kWh, year, source."""
    return [
        {
            "zone": zone.code,
            "name": zone.name,
            "gco2e_per_kwh": zone.gco2e_per_kwh,
            "year": zone.year,
            "source": zone.source,
        }
        for zone in grid_zones().values()
    ]


def run_rows(
    run_dirs: Sequence[Path], changes: Mapping[str, Any], hourly: Path | None, within_hours: float
) -> list[Row]:
    """Return each run's emissions, and with an hourly intensity its best start.

    Raises:
        BenchmarkError: A run or the hourly file cannot be read, or does not cover the run.
    """
    runs = [footprint.with_assumptions(run, changes) for run in read_runs(run_dirs)]
    rows = []
    for run in runs:
        energy, emitted = footprint.facility_energy(run), footprint.emissions(run)
        row: Row = {
            "run": run.name,
            "energy_joules": energy.value,
            "energy_kind": energy.kind,
            "emissions_gco2e": emitted.value,
            "source": emitted.source if emitted.value is not None else None,
            "reason": emitted.reason,
        }
        if hourly is not None:
            row |= _start_columns(run, energy.value, hourly, timedelta(hours=within_hours))
        rows.append(row)
    return rows


def _start_columns(run: Run, joules: float | None, hourly: Path, within: timedelta) -> Row:
    """Return emissions at the run's own and at the best start, power assumed constant."""
    try:
        begin = datetime.fromisoformat(run.record["started_at"])
        end = datetime.fromisoformat(run.record["finished_at"])
    except (KeyError, TypeError, ValueError):
        raise BenchmarkError(f"{run.path}: its start or end is not recorded") from None
    comparison = best_start(read_hourly(hourly), begin, end - begin, within)
    kwh = None if joules is None else joules / JOULES_PER_KWH
    return {
        "hourly_gco2e": None if kwh is None else kwh * comparison.intensity,
        "best_start": comparison.best_start.isoformat(),
        "best_gco2e": None if kwh is None else kwh * comparison.best_intensity,
        "saved_share": comparison.saved_fraction,
    }


_UNITS = {"energy_joules": "J", "emissions_gco2e": "gCO2e", "hourly_gco2e": "gCO2e",
          "best_gco2e": "gCO2e", "saved_share": "share"}  # fmt: skip


def print_rows(rows: Sequence[Row]) -> None:
    """Print rows as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    shown = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    for name in shown:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(name, row[name]) for name in shown))
    Console().print(table)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "–"
    return readable(value, _UNITS[name]) if name in _UNITS else str(value)
