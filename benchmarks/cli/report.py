"""`moe report` and `moe carbon`: what runs reached and what they cost."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from data.options import JsonOption

RunsArgument = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.")]
RegionOption = Annotated[
    str | None, typer.Option(help="Grid zone in place of the runs' own, e.g. FRA or US-CA.")
]
IntensityOption = Annotated[
    float | None, typer.Option("--intensity", help="Your own carbon intensity, gCO2e/kWh.")
]
PueOption = Annotated[float | None, typer.Option(help="Power usage effectiveness of the facility.")]
PriceOption = Annotated[
    float | None, typer.Option("--price", help="Price of a device-hour, in --currency.")
]
PowerPriceOption = Annotated[
    float | None, typer.Option("--power-price", help="Price of a kWh, in --currency.")
]
CurrencyOption = Annotated[str | None, typer.Option(help="Currency of the prices, ISO 4217.")]


def report(  # noqa: PLR0913 - a command's options
    runs: RunsArgument,
    *,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Where to write the report.")
    ] = Path("report"),
    law: Annotated[
        str | None,
        typer.Option(
            metavar="LAW",
            help="Set a law beside the runs: output of moe fit --json, or a published name.",
        ),
    ] = None,
    bench: Annotated[
        list[Path] | None,
        typer.Option("--bench", metavar="FILE", help="Results of `moe bench -o FILE` to show."),
    ] = None,
    region: RegionOption = None,
    intensity: IntensityOption = None,
    pue: PueOption = None,
    price: PriceOption = None,
    power_price: PowerPriceOption = None,
    currency: CurrencyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare runs: an offline page with plots, a Markdown twin, and all figures as data."""
    from benchmarks.report.write import write_report

    changes = assumption_changes(region, intensity, pue, price, power_price, currency)
    paths = write_report(runs, out, changes, bench or (), law)
    content = json.loads(paths.json.read_text(encoding="utf-8"))
    for run in content["unreadable"]:
        typer.echo(f"left out: {run['reason']}", err=True)
    if as_json:
        typer.echo(paths.json.read_text(encoding="utf-8"))
        return
    typer.echo(content["finding"])
    typer.echo(f"report: {paths.html.resolve()}", err=True)


def carbon(  # noqa: PLR0913 - a command's options
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="RUN...", help="Run directories.")
    ] = None,
    *,
    region: RegionOption = None,
    intensity: IntensityOption = None,
    pue: PueOption = None,
    hourly: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="CSV (time, gco2e_per_kwh): what another start would save."
        ),
    ] = None,
    within: Annotated[
        float,
        typer.Option(
            help="Hours by which the start may be put off, for --hourly.", min=0, max=87_600
        ),
    ] = 24.0,
    zones: Annotated[
        bool, typer.Option("--zones", help="List the grid zones of the shipped table.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the emissions of runs, under any grid, and what starting later would have saved."""
    from benchmarks.errors import BenchmarkError
    from benchmarks.footprint import tables
    from data.plain_text import printable, printable_values

    if zones:
        rows, notes = tables.zone_rows(), []
        table = tables.zone_table(rows)
    elif not runs:
        raise BenchmarkError("name one or more run directories, or ask for --zones")
    else:
        changes = assumption_changes(region, intensity, pue)
        found, unreadable = tables.run_rows(runs, changes, hourly, within)
        rows = printable_values(found)
        for run in unreadable:
            typer.echo(f"left out: {printable(run.reason)}", err=True)
        table, notes = tables.run_table(rows), tables.run_notes(rows)
    if as_json:
        typer.echo(json.dumps(rows))
        return
    from rich.console import Console

    Console().print(table)
    for note in notes:
        typer.echo(note)


def assumption_changes(  # noqa: PLR0913 - the options that state assumptions
    region: str | None,
    intensity: float | None,
    pue: float | None,
    price: float | None = None,
    power_price: float | None = None,
    currency: str | None = None,
) -> dict[str, Any]:
    """Return what the options change of a footprint's assumptions, by key."""
    return {
        "region": region,
        "carbon_intensity": intensity,
        "pue": pue,
        "price_per_device_hour": price,
        "price_per_kwh": power_price,
        "currency": currency,
    }
