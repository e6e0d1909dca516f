"""`moe energy`: the joules of a run by phase, and again from a power logger's file."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from data.options import JsonOption


def energy(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")],
    *,
    power_csv: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Meter the run by logged power samples: CSV with time, watts and maybe device.",
        ),
    ] = None,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep", help="Write that into the run's record; its own meter's stays beside."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show a run's energy: by phase, a token, idle, its uncertainty, and what metering took."""
    from benchmarks.errors import BenchmarkError

    if keep and power_csv is None:
        raise BenchmarkError("--keep goes with --power-csv FILE: name the logger's file")
    section = _section(run, power_csv, keep=keep)
    if not section:
        raise BenchmarkError(f"{run}: its record has no energy yet: it has not ended, or no meter")
    if as_json:
        typer.echo(json.dumps(section))
        return
    from rich.console import Console

    from benchmarks.energy.tables import energy_lines, phase_table

    console = Console()
    console.print(phase_table(section))
    for line in energy_lines(section):
        console.print(line, markup=False, highlight=False)


def _section(run: Path, power_csv: Path | None, *, keep: bool) -> dict[str, Any] | None:
    """Return a run's energy by its own meter or by a logger; the latter may go on record."""
    from benchmarks.energy.remeter import remeter_from_samples
    from moe.runs.directory import ended_run
    from moe.runs.reader import read_run
    from moe.runs.record import write_record

    recorded = read_run(run).record
    own: dict[str, Any] | None = recorded.get("energy")
    if power_csv is None:
        return own
    if not keep:
        return remeter_from_samples(run, recorded, power_csv)
    with ended_run(run) as record:
        section = remeter_from_samples(run, record, power_csv)
        own = record.get("energy_own", record.get("energy"))
        write_record(run, {**record, "energy": section, "energy_own": own})
    return section
