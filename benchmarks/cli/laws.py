"""`moe fit`: scaling laws from points."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data.options import JsonOption

if TYPE_CHECKING:
    from rich.console import Console

DEFAULT_LAW = "chinchilla"


def fit(  # noqa: PLR0913 - a command's options
    points: Annotated[
        list[Path],
        typer.Argument(
            metavar="POINTS", help="CSV or Parquet, one run a row; or run directories."
        ),
    ],
    *,
    law: Annotated[
        list[str] | None,
        typer.Option(
            "--law",
            metavar="NAME",
            help="A law's name or an expression of your own; several are compared."
            "  [default: chinchilla]",
        ),
    ] = None,
    loss: Annotated[
        str, typer.Option(metavar="LOSS", help="Of ln L: huber (delta 1e-3), lad or squared.")
    ] = "huber",
    resamples: Annotated[
        int | None,
        typer.Option(help="Bootstrap resamples.  [default: 200, fewer beyond 1,000 points]",
                     min=20, max=10_000),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.", min=0)] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write the JSON here too.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write figures and tables as one page.")
    ] = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Fit a scaling law to runs: coefficients, intervals, what they leave open, extrapolation."""
    from benchmarks.errors import BenchmarkError
    from benchmarks.laws.compare import comparison, fit_laws
    from benchmarks.laws.run_points import points_from
    from data.storage.atomic import write_text

    read, names = points_from(points), law or [DEFAULT_LAW]
    fits = fit_laws(read, names, loss, seed=seed, resamples=resamples)
    found = fits[0].document if len(fits) == 1 else comparison(fits)
    for one in found.get("fits", [found]):
        for warning in one["warnings"]:
            typer.echo(f"warning: {warning}", err=True)
    text = json.dumps(found, allow_nan=False)
    if out is not None:
        try:
            write_text(out, text + "\n")
        except OSError as error:
            raise BenchmarkError(f"--out {out}: {error.strerror or error}") from None
    if html is not None:
        from benchmarks.report.laws.page import write_law_page

        write_law_page(html, read, fits)
    if as_json:
        typer.echo(text)
        return
    from rich.console import Console

    from benchmarks.laws.tables import comparison_table, fit_tables, residual_lines

    tables = [comparison_table(found)] if len(fits) > 1 else fit_tables(found)
    _print(tables, Console())
    for one in fits:
        named = f"{one.fit.law.name}: " if len(fits) > 1 else ""
        for line in residual_lines(one.document):
            typer.echo(f"{named}{line}")


def _print(tables: list[Any], console: "Console") -> None:
    for table in tables:
        console.print(table)
        console.print()
