"""`moe choose`: which model and which layout for a budget, and what it will really cost."""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.cli import decision_options as opt
from benchmarks.cli.predict import show
from data.options import JsonOption

LawOption = Annotated[
    str | None,
    typer.Option(
        metavar="LAW",
        help="Output of moe fit --json, or published name.  [default: ludziejewski-2025]",
    ),
]
WriteOption = Annotated[
    Path | None,
    typer.Option("--write", metavar="FILE", help="Write the model as a complete experiment."),
]


@opt.decision_command
def choose(
    *,
    budget_gpu_hours: opt.BudgetHoursOption = None,
    budget_joules: opt.BudgetJoulesOption = None,
    budget_money: opt.BudgetMoneyOption = None,
    budget_gco2: opt.BudgetGco2Option = None,
    law: LawOption = None,
    write: WriteOption = None,
    asked: opt.Asked,
    as_json: JsonOption = False,
) -> None:
    """Choose model and layout for a budget: tokens, date, loss, joules, money, CO2, how sure."""
    from benchmarks.decisions.choice import DEFAULT_LAW, choice
    from benchmarks.decisions.decision import decide
    from benchmarks.decisions.experiment_file import check_destination, write_experiment
    from benchmarks.decisions.limits import Limits
    from benchmarks.decisions.question import Question
    from benchmarks.decisions.tables import (
        date_line,
        decision_lines,
        decision_table,
        loss_line,
        model_line,
        quantity_table,
    )
    from benchmarks.errors import BenchmarkError
    from benchmarks.laws.fitted_law import find_fitted

    limits = Limits(
        gpu_hours=budget_gpu_hours,
        joules=budget_joules,
        money=budget_money,
        gco2=budget_gco2,
        **asked.limits,
    )
    if asked.options is None:
        raise BenchmarkError("name the cards: --gpu and --gpus")
    if write is not None:
        check_destination(write)
    question = Question(
        fitted=find_fitted(law or DEFAULT_LAW),
        limits=limits,
        options=asked.options,
        reliability=asked.reliability,
        started=asked.started,
        asked=law or DEFAULT_LAW,
    )
    found, experiment = choice(decide(question))
    if write is not None:
        cards = f"{found['model']['gpus']} x {found['model']['gpu']}"
        write_experiment(write, experiment, cards)
        typer.echo(f"moe: {write}: the experiment is written", err=True)
    tables = [decision_table(found), quantity_table(found)]
    lines = [model_line(experiment), date_line(found), loss_line(found), *decision_lines(found)]
    show(found, tables, lines, as_json=as_json)
