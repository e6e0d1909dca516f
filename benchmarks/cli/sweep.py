"""`moe sweep`: a design to many runs; shown, run here, or written for a cluster."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data.options import JsonOption

if TYPE_CHECKING:
    from benchmarks.sweeps.expansion import Expansion
    from benchmarks.sweeps.running import Outcome
    from benchmarks.sweeps.speed import Speed

SWEEPS = Path("sweeps")


def sweep(  # noqa: PLR0913 - a command's options
    design: Annotated[Path, typer.Argument(metavar="DESIGN", help="Design file (TOML).")],
    *,
    run: Annotated[bool, typer.Option("--run", help="Run what is missing, here.")] = False,
    jobs: Annotated[int, typer.Option(help="Runs at a time.", min=1, max=1024)] = 1,
    directory: Annotated[
        Path | None,
        typer.Option("--dir", help="Where it runs.  [default: sweeps/NAME]", show_default=False),
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(
            "--write",
            metavar="DIR",
            help="Write DIR/experiments for moe slurm submit, and the results of DIR/runs.",
        ),
    ] = None,
    measured: Annotated[
        list[Path] | None,
        typer.Option(metavar="RUN", help="Cost by a measured run, or by a sweep's runs."),
    ] = None,
    gpu: Annotated[str | None, typer.Option(help="Cost by planning for this card.")] = None,
    gpus: Annotated[int, typer.Option(help="How many cards a run has.", min=1)] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what it would be, as without --run.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Expand a design into runs: show them and their cost, run them, or write them."""
    from benchmarks.errors import BenchmarkError
    from benchmarks.sweeps.design import read_design
    from benchmarks.sweeps.expand import expand

    if sum((run, write is not None, dry_run)) > 1:
        raise BenchmarkError("--run, --write and --dry-run: choose one")
    if directory is not None and not run:
        raise BenchmarkError("--dir says where --run runs: give both, or --write DIR")
    read = read_design(design)
    expansion = expand(read, _speed(measured or [], gpu, gpus))
    if not as_json:
        _show_points(expansion)
    outcome: Outcome | None = None
    if run:
        outcome = _run(expansion, directory or SWEEPS / read.name, jobs)
    elif write is not None:
        outcome = _write(expansion, write)
    if as_json:
        more: dict[str, Any] = {}
        if outcome is not None:
            more = {"folder": str(outcome.folder), "results": outcome.rows}
        typer.echo(json.dumps(expansion.as_json() | more, allow_nan=False))
    elif run and outcome is not None:
        _show_results(outcome)
    if run and outcome is not None:
        outcome.check()


def _speed(measured: list[Path], gpu: str | None, gpus: int) -> "Speed":
    from benchmarks.errors import BenchmarkError
    from benchmarks.sweeps.measured_speed import MeasuredSpeed
    from benchmarks.sweeps.planned_speed import PlannedSpeed
    from benchmarks.sweeps.speed import UnknownSpeed

    if measured and gpu is not None:
        raise BenchmarkError("--measured and --gpu both say the cost: choose one")
    if measured:
        return MeasuredSpeed(measured)
    if gpu is not None:
        return PlannedSpeed(gpu, gpus)
    if gpus != 1:
        raise BenchmarkError(f"--gpus {gpus} needs --gpu: name the card")
    return UnknownSpeed()


def _run(expansion: "Expansion", path: Path, jobs: int) -> "Outcome":
    from benchmarks.sweeps.folder import open_folder
    from benchmarks.sweeps.running import run_missing

    points = [one.point for one in expansion.points]
    with open_folder(path, expansion.design, points) as folder:
        return run_missing(
            folder, expansion, jobs, lambda line: typer.echo(f"moe: {line}", err=True)
        )


def _write(expansion: "Expansion", path: Path) -> "Outcome":
    from benchmarks.sweeps.folder import open_folder
    from benchmarks.sweeps.running import Outcome, collect

    points = [one.point for one in expansion.points]
    with open_folder(path, expansion.design, points) as folder:
        rows = tuple(collect(folder, expansion).values())
    typer.echo(
        f"moe: {len(points)} experiments: moe slurm submit {path}/experiments --name"
        f" {expansion.design.name} --runs-dir {path}/runs; afterwards, this command again writes"
        f" {path}/results.parquet",
        err=True,
    )
    return Outcome(path, rows)


def _show_points(expansion: "Expansion") -> None:
    from rich.console import Console

    from benchmarks.sweeps.tables import point_table, summary_lines

    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(point_table(expansion))
    for line in summary_lines(expansion):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _show_results(outcome: "Outcome") -> None:
    from rich.console import Console

    from benchmarks.sweeps.tables import result_table

    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(result_table(outcome.rows))
    console.print(f"{outcome.folder}/results.parquet", highlight=False, soft_wrap=True)
