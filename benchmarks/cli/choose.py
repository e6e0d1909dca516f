"""`moe choose`: which model and which layout for a budget, and what it will really cost."""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.cli import decision_options as opt
from benchmarks.cli.plan_options import (
    CheckpointOption,
    GlobalBatchOption,
    GpuOption,
    MtbfOption,
    PrecisionOption,
    RegionOption,
    RestartOption,
    SeqLenOption,
    StartOption,
)
from benchmarks.cli.predict import show
from benchmarks.cli.report import (
    CurrencyOption,
    IntensityOption,
    PowerPriceOption,
    PriceOption,
    PueOption,
    assumption_changes,
)
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


def choose(  # noqa: PLR0913, PLR0914 - a command's options
    *,
    budget_gpu_hours: opt.BudgetHoursOption = None,
    budget_joules: opt.BudgetJoulesOption = None,
    budget_money: opt.BudgetMoneyOption = None,
    budget_gco2: opt.BudgetGco2Option = None,
    tokens: opt.DataOption = None,
    memory_bytes: opt.MemoryBytesOption = None,
    memory: opt.MemoryOption = opt.MemoryName.SERVING,
    served_tokens: opt.ServedOption = 0.0,
    serving_utilisation: opt.ServingUtilisationOption = 0.1,
    serving_bits: opt.ServingBitsOption = 16,
    serving_context: opt.ServingContextOption = 4096,
    serving_batch: opt.ServingBatchOption = 1,
    law: LawOption = None,
    gpu: GpuOption = None,
    gpus: opt.GpusOption = None,
    seq_len: SeqLenOption = None,
    global_batch_size: GlobalBatchOption = None,
    precision: PrecisionOption = None,
    price: PriceOption = None,
    power_price: PowerPriceOption = None,
    currency: CurrencyOption = None,
    region: RegionOption = None,
    intensity: IntensityOption = None,
    pue: PueOption = None,
    gpu_mtbf_hours: MtbfOption = 50_000.0,
    checkpoint_seconds: CheckpointOption = 60.0,
    restart_seconds: RestartOption = 600.0,
    start: StartOption = None,
    write: WriteOption = None,
    as_json: JsonOption = False,
) -> None:
    """Choose model and layout for a budget: tokens, date, loss, joules, money, CO2, how sure."""
    from benchmarks.decisions.choice import DEFAULT_LAW, choice
    from benchmarks.decisions.decision import decide
    from benchmarks.decisions.experiment_file import check_destination, write_experiment
    from benchmarks.decisions.limits import Limits, Serving
    from benchmarks.decisions.question import Question
    from benchmarks.decisions.tables import (
        date_line,
        decision_lines,
        decision_table,
        quantity_table,
    )
    from benchmarks.errors import BenchmarkError
    from benchmarks.laws.fitted_law import find_fitted
    from benchmarks.planning.failures import Reliability

    limits = Limits(
        gpu_hours=budget_gpu_hours,
        joules=budget_joules,
        money=budget_money,
        gco2=budget_gco2,
        tokens=tokens,
        memory_bytes=memory_bytes,
        memory=memory.value,
        serving=Serving(
            tokens=served_tokens,
            utilisation=serving_utilisation,
            weight_bits=serving_bits,
            context=serving_context,
            batch=serving_batch,
        ),
    )
    if write is not None:
        check_destination(write)
    if gpu is None or gpus is None:
        raise BenchmarkError("name the cards: --gpu and --gpus")
    options = opt.cards_of(
        gpu,
        gpus,
        {
            "seq_len": seq_len,
            "global_batch_size": global_batch_size,
            "precision": precision,
            "assumptions": assumption_changes(region, intensity, pue, price, power_price, currency),
        },
    )
    question = Question(
        fitted=find_fitted(law or DEFAULT_LAW),
        limits=limits,
        options=options,
        reliability=Reliability(
            gpu_mtbf_hours=gpu_mtbf_hours,
            checkpoint_seconds=checkpoint_seconds,
            restart_seconds=restart_seconds,
        ),
        started=opt.date_of(start),
    )
    found, experiment = choice(decide(question))
    if write is not None:
        write_experiment(write, experiment)
        typer.echo(f"moe: {write}: the experiment is written", err=True)
    show(
        found,
        lambda: [decision_table(found), quantity_table(found)],
        [date_line(found), *decision_lines(found)],
        as_json=as_json,
    )
