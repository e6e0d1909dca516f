"""Options that several commands share; those of every benchmark are added by `bench_command`."""

import functools
import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from data.options import JsonOption

NprocOption = Annotated[int, typer.Option(help="Processes on this machine.", min=1)]
ModelsArgument = Annotated[
    list[str], typer.Argument(metavar="MODEL...", help="Presets or TOML files.")
]
LayersOption = Annotated[
    int | None, typer.Option(help="Keep only the first layers, so that it fits.", min=1)
]
HiddenSizeOption = Annotated[int, typer.Option(help="Hidden size.", min=1)]
ExpertSizeOption = Annotated[int, typer.Option(help="Inner size of one expert.", min=1)]
RoutingOption = Annotated[
    list[str] | None,
    typer.Option(
        help="natural, untrained, forced, zipf:S or hot:SHARE; may be given several times."
    ),
]
ReplayOption = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Natural routing as recorded: a file of moe eval, or study."),
]

RepeatsOption = Annotated[int, typer.Option(help="Timed repeats.", min=1)]
WarmupOption = Annotated[int, typer.Option(help="Repeats before, not counted.", min=0)]
OverridesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override parallel., precision., energy. keys."
    ),
]
ResultsOption = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="FILE", help="Keep results (JSON lines); resumable."),
]

Records = Sequence[Mapping[str, Any]]


def bench_command(
    *, repeats: int, warmup: int | None = None, runs_model: bool = False
) -> Callable[[Callable[..., Records]], Callable[..., None]]:
    """Make a command of a function that runs a benchmark and returns its records.

    The command has the function's own options and, after them, those of every benchmark: the
    function receives these as one `options`, and the command prints the records (only rank 0 has
    any). If the function has an `nproc` option, the command starts that many ranks of itself.

    Args:
        repeats: Default of `--repeats`.
        warmup: Default of `--warmup`; `None`: there is no such option.
        runs_model: Whether it runs a model on the engine: there is a `--set` option then.
    """
    shared = [_option("repeats", RepeatsOption, repeats)]
    if warmup is not None:
        shared.append(_option("warmup", WarmupOption, warmup))
    if runs_model:
        shared.append(_option("overrides", OverridesOption, None))
    shared.append(_option("out", ResultsOption, None))
    as_json = _option("as_json", JsonOption, False)

    def decorate(run: Callable[..., Records]) -> Callable[..., None]:
        own = [p for p in inspect.signature(run).parameters.values() if p.name != "options"]

        @functools.wraps(run)
        def command(*, as_json: bool, **values: Any) -> None:
            from benchmarks.bench.cases import BenchOptions
            from parallel.engine.imports import import_engine, quieten_engine

            if _started_ranks(values.get("nproc", 1)):
                return
            quieten_engine()
            if runs_model:
                import_engine()
            given = {option.name: values.pop(option.name) for option in shared}
            given["overrides"] = tuple(given.get("overrides") or ())
            _print_records(run(**values, options=BenchOptions(**given)), as_json=as_json)

        signature = inspect.Signature([*own, *shared, as_json])
        command.__signature__ = signature  # type: ignore[attr-defined]  # read by typer
        command.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
        return command

    return decorate


def _option(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def _started_ranks(nproc: int) -> bool:
    """Run this very command as `nproc` ranks; returns whether that was done."""
    if nproc == 1 or "RANK" in os.environ:
        return False
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    from parallel.engine.launch import launch_ranks

    try:
        launch_ranks(["-m", "moescale", *sys.argv[1:]], nproc)
    except ChildFailedError as error:
        codes = {failure.exitcode for failure in error.failures.values()}
        # The rank has printed what is wrong.
        raise typer.Exit(2 if 2 in codes else 1) from None
    return True


def _print_records(records: Records, *, as_json: bool) -> None:
    if not records:
        return
    if as_json:
        typer.echo(json.dumps(records))
        return
    from rich.console import Console

    from benchmarks.report.bench_results import TABLES

    console = Console(width=None if sys.stdout.isatty() else 150)
    for table in TABLES[records[0]["bench"]](records):
        console.print(table)
