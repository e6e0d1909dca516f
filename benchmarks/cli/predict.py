"""`moe predict`: the best sizes under limits, by a law and what layouts really cost."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks.cli import decision_options as opt
from data.options import JsonOption

if TYPE_CHECKING:
    from benchmarks.text_table import TextTable

LawArgument = Annotated[
    str, typer.Argument(metavar="LAW", help="Output of moe fit --json, or published name.")
]


@opt.decision_command
def predict(  # noqa: PLR0913 - a command's options
    law: LawArgument,
    *,
    flops: opt.FlopsOption = None,
    gpu_hours: opt.HoursOption = None,
    joules: opt.JoulesOption = None,
    money: opt.MoneyOption = None,
    gco2: opt.Gco2Option = None,
    asked: opt.Asked,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the law's figures with the best model marked."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find the best model under limits of FLOPs, GPU-hours, joules, money or memory, by a law."""
    from benchmarks.decisions.decision import decide
    from benchmarks.decisions.documents import prediction
    from benchmarks.decisions.limits import Limits
    from benchmarks.decisions.question import Question
    from benchmarks.decisions.tables import decision_lines, decision_table
    from benchmarks.laws.fitted_law import find_fitted
    from benchmarks.laws.predict import predict as predict_sizes
    from benchmarks.laws.tables import prediction_table

    limits = Limits(
        flops=flops, gpu_hours=gpu_hours, joules=joules, money=money, gco2=gco2, **asked.limits
    )
    fitted = find_fitted(law)
    if flops is not None and asked.options is None and limits.is_of_flops_alone:
        found = predict_sizes(fitted, flops, limits.serving.tokens) | {"asked": law}
        table, lines = prediction_table(found), []
    else:
        question = Question(
            fitted=fitted,
            limits=limits,
            options=asked.options,
            reliability=asked.reliability,
            started=asked.started,
            asked=law,
        )
        found = prediction(decide(question))
        table, lines = decision_table(found), decision_lines(found)
    if html is not None:
        from benchmarks.report.laws.page import write_prediction_page

        write_prediction_page(html, fitted, found, [table])
    show(found, [table], lines, as_json=as_json)


def show(
    found: dict[str, Any], tables: "Sequence[TextTable]", lines: Sequence[str], *, as_json: bool
) -> None:
    """Print a document, or its tables and sentences; warnings go to stderr."""
    for warning in found["warnings"]:
        typer.echo(f"warning: {warning}", err=True)
    if as_json:
        typer.echo(json.dumps(found, allow_nan=False))
        return
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 160)
    for table in tables:
        console.print(table)
        console.print()
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
