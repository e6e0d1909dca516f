"""Rows and table of `moe carbon`: emissions of runs, and the shipped grid zones."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.footprint import footprint
from benchmarks.footprint.carbon_intensity import grid_zones
from benchmarks.footprint.start_time import best_start, read_hourly
from benchmarks.text_table import TextTable
from moe.runs.reader import UnreadableRun
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
) -> tuple[list[Row], list[UnreadableRun]]:
    """Return each run's emissions, and with an hourly intensity its best start; and bad runs.

    Raises:
        ConfigError: No run can be read.
        BenchmarkError: The hourly file cannot be read, or does not cover a run.
    """
    runs, unreadable = footprint.read_runs_under(run_dirs, changes)
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
    return rows, unreadable


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=time.tzinfo or UTC)


def _start_columns(run: Run, joules: float | None, hourly: Path, within: timedelta) -> Row:
    """Return emissions at the run's own and at the best start, power assumed constant."""
    unknown = dict.fromkeys(("hourly_gco2e", "best_start", "best_gco2e", "saved_share"))
    try:
        begin, end = (_time(run.record[key]) for key in ("started_at", "finished_at"))
    except (KeyError, TypeError, ValueError):  # it still runs, or was killed
        return {**unknown, "hourly_reason": "its start or end is not recorded"}
    comparison = best_start(read_hourly(hourly), begin, end - begin, within)
    kwh = None if joules is None else joules / JOULES_PER_KWH
    return {
        "hourly_gco2e": None if kwh is None else kwh * comparison.intensity,
        "best_start": comparison.best_start.isoformat(),
        "best_gco2e": None if kwh is None else kwh * comparison.best_intensity,
        "saved_share": comparison.saved_fraction,
        "hourly_reason": None,
    }


def run_table(rows: Sequence[Row]) -> TextTable:
    """Return energy and emissions of runs, and with an hourly intensity the best start."""
    hourly = "best_start" in rows[0]
    more = ("hourly emissions", "best start", "at best start", "saved") if hourly else ()
    table = TextTable("", ("run", "energy", "emissions", *more))
    for row in rows:
        kind = f" {row['energy_kind']}" if row["energy_kind"] else ""
        cells = [
            f"{readable(row['energy_joules'], 'J')}{kind}",
            readable(row["emissions_gco2e"], "gCO2e"),
        ]
        if hourly:
            start = row["best_start"] and datetime.fromisoformat(row["best_start"])
            cells += [
                readable(row["hourly_gco2e"], "gCO2e"),
                f"{start:%Y-%m-%d %H:%M %Z}" if start else f"– ({row['hourly_reason']})",
                readable(row["best_gco2e"], "gCO2e"),
                readable(row["saved_share"], "share"),
            ]
        table.add_row(row["run"], *cells)
    return table


def run_notes(rows: Sequence[Row]) -> list[str]:
    """Return how emissions were computed, or why they are unknown: each text once."""
    runs_by_note: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        known = row["source"] is not None
        note = ("emissions", row["source"]) if known else ("emissions unknown", row["reason"])
        runs_by_note.setdefault(note, []).append(row["run"])
    if len(runs_by_note) == 1:
        return [f"{what}: {text}" for what, text in runs_by_note]
    return [f"{what} ({', '.join(runs)}): {text}" for (what, text), runs in runs_by_note.items()]


def zone_table(rows: Sequence[Row]) -> TextTable:
    """Return the shipped grid zones."""
    table = TextTable("", ("zone", "name", "gCO2e/kWh", "year", "source"))
    for column in (1, 4):
        table.columns[column].justify = "left"
    for row in rows:
        table.add_row(
            row["zone"],
            row["name"],
            f"{row['gco2e_per_kwh']:g}",
            str(row["year"] or "–"),
            row["source"],
        )
    return table
