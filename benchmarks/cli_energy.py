"""`moe energy`: the joules of a run by phase, and again from a power logger's file."""

import json
from pathlib import Path
from typing import Annotated

import typer


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
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show a run's energy: by phase, a token, idle, its uncertainty, and what metering took."""
    from benchmarks.energy_samples import energy_by_samples
    from benchmarks.errors import BenchmarkError
    from benchmarks.runs import read_run
    from moe.files import write_json

    found = read_run(run)
    section = found.record.get("energy")
    if keep and power_csv is None:
        raise BenchmarkError("--keep goes with --power-csv FILE: name the logger's file")
    if power_csv is not None:
        section = energy_by_samples(run, found.record, power_csv)
        if keep:
            own = found.record.get("energy_own", found.record.get("energy"))
            record = {**found.record, "energy": section, "energy_own": own}
            write_json(run / "record.json", record)
    if not section:
        raise BenchmarkError(f"{run}: its record has no energy yet: it has not ended, or no meter")
    if as_json:
        typer.echo(json.dumps(section))
        return
    from rich.console import Console

    from benchmarks.energy_tables import energy_lines, phase_table

    console = Console()
    console.print(phase_table(section))
    for line in energy_lines(section):
        console.print(line, markup=False, highlight=False)
