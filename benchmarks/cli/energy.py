"""`moe energy`: the joules of a run by phase, and again from a power logger's file."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data.options import JsonOption

if TYPE_CHECKING:
    from rich.console import Console

Remeter = Callable[[Path, Mapping[str, Any]], dict[str, Any]]
"""Makes a run's `energy` section anew, of its directory and record."""


def energy(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.")],
    *,
    power_csv: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Meter the run by logged power samples: CSV with time, watts and maybe device.",
        ),
    ] = None,
    power_devices: Annotated[
        list[str] | None,
        typer.Option(
            "--power-device",
            metavar="NAME",
            help="A device of that log to sum, the only ones read; repeat it for more.",
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
    if power_devices and power_csv is None:
        raise BenchmarkError("--power-device goes with --power-csv FILE: name the logger's file")
    sections = _sections(runs, _remeter_by(power_csv, power_devices or None), keep=keep)
    if as_json:
        document = sections[0] if len(runs) == 1 else {"runs": sections}
        typer.echo(json.dumps(document))
        return
    from rich.console import Console

    console = Console()
    for section in sections:
        if len(runs) > 1:
            console.print(f"{section['run']}:", markup=False, highlight=False)
        _print_section(section, console)


def _print_section(section: dict[str, Any], console: "Console") -> None:
    from benchmarks.energy.tables import energy_lines, phase_table

    if "unknown" in section:
        console.print(section["unknown"], markup=False, highlight=False)
        return
    console.print(phase_table(section))
    for line in energy_lines(section):
        console.print(line, markup=False, highlight=False)


def _remeter_by(power_csv: Path | None, devices: Sequence[str] | None) -> Remeter | None:
    """Return what meters a run by a logger's file; `None` without one."""
    from benchmarks.energy.remeter import remeter_from_samples

    if power_csv is None:
        return None
    return partial(remeter_from_samples, file=power_csv, devices=devices)


def _sections(runs: Sequence[Path], remeter: Remeter | None, *, keep: bool) -> list[dict[str, Any]]:
    """Return each run's energy; of several, one without has the reason as `unknown`.

    Raises:
        InputError: No run has energy to show.
    """
    from data.errors import InputError
    from data.plain_text import printable, printable_values

    sections: list[dict[str, Any]] = []
    refusals: list[InputError] = []
    for run in runs:
        try:
            sections.append(printable_values(_section(run, remeter, keep=keep)))
        except InputError as error:
            refusals.append(error)
            sections.append({"unknown": printable(str(error))})
    if len(refusals) == len(runs):
        raise refusals[0]
    if len(runs) == 1:
        return sections
    return [
        {"run": printable(str(run)), **section} for run, section in zip(runs, sections, strict=True)
    ]


def _section(run: Path, remeter: Remeter | None, *, keep: bool) -> dict[str, Any]:
    """Return a run's energy by its own meter or by a logger; the latter may go on record."""
    from benchmarks.errors import BenchmarkError
    from moe.runs.directory import ended_run
    from moe.runs.reader import read_run
    from moe.runs.record import write_record

    recorded = read_run(run).record
    own: dict[str, Any] | None = recorded.get("energy")
    if remeter is None:
        if not own:
            raise BenchmarkError(
                f"{run}: its record has no energy yet: it has not ended, or no meter"
            )
        return own
    if not keep:
        return remeter(run, recorded)
    with ended_run(run) as record:
        section = remeter(run, record)
        own = record.get("energy_own", record.get("energy"))
        write_record(run, {**record, "energy": section, "energy_own": own})
    return section
