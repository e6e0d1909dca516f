"""`moe predict`: the best sizes under limits, by a law and what layouts really cost."""

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

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
from benchmarks.cli.report import (
    CurrencyOption,
    IntensityOption,
    PowerPriceOption,
    PriceOption,
    PueOption,
    assumption_changes,
)
from data.options import JsonOption

if TYPE_CHECKING:
    from benchmarks.decisions.limits import Limits
    from benchmarks.laws.fitted_law import FittedLaw
    from benchmarks.planning.job import JobOptions

LawArgument = Annotated[
    str, typer.Argument(metavar="LAW", help="Output of moe fit --json, or published name.")
]


def predict(  # noqa: PLR0913, PLR0914 - a command's options
    law: LawArgument,
    *,
    flops: opt.FlopsOption = None,
    gpu_hours: opt.HoursOption = None,
    joules: opt.JoulesOption = None,
    money: opt.MoneyOption = None,
    gco2: opt.Gco2Option = None,
    tokens: opt.DataOption = None,
    memory_bytes: opt.MemoryBytesOption = None,
    memory: opt.MemoryOption = opt.MemoryName.SERVING,
    served_tokens: opt.ServedOption = 0.0,
    serving_utilisation: opt.ServingUtilisationOption = 0.1,
    serving_bits: opt.ServingBitsOption = 16,
    serving_context: opt.ServingContextOption = 4096,
    serving_batch: opt.ServingBatchOption = 1,
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
    as_json: JsonOption = False,
) -> None:
    """Find the best model under limits of FLOPs, GPU-hours, joules, money or memory, by a law."""
    from benchmarks.decisions.limits import Limits, Serving
    from benchmarks.laws.fitted_law import find_fitted
    from benchmarks.planning.failures import Reliability

    limits = Limits(
        flops=flops,
        gpu_hours=gpu_hours,
        joules=joules,
        money=money,
        gco2=gco2,
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
    started = opt.date_of(start)
    fitted = find_fitted(law)
    if options is None and limits.is_of_flops_alone:
        _by_flops(fitted, limits, as_json=as_json)
        return
    reliability = Reliability(
        gpu_mtbf_hours=gpu_mtbf_hours,
        checkpoint_seconds=checkpoint_seconds,
        restart_seconds=restart_seconds,
    )
    _by_models(fitted, limits, options, (reliability, started), as_json=as_json)


def _by_flops(fitted: "FittedLaw", limits: "Limits", *, as_json: bool) -> None:
    """Print the law's own optimum, of any size."""
    from benchmarks.laws.predict import predict as predict_sizes
    from benchmarks.laws.tables import prediction_table

    assert limits.flops is not None
    found = predict_sizes(fitted, limits.flops, limits.serving.tokens)
    show(found, lambda: [prediction_table(found)], [], as_json=as_json)


def _by_models(
    fitted: "FittedLaw",
    limits: "Limits",
    options: "JobOptions | None",
    run: tuple[Any, Any],
    *,
    as_json: bool,
) -> None:
    """Print the best model of the ladder."""
    from benchmarks.decisions.decision import decide
    from benchmarks.decisions.documents import prediction
    from benchmarks.decisions.question import Question
    from benchmarks.decisions.tables import decision_lines, decision_table

    reliability, started = run
    question = Question(
        fitted=fitted, limits=limits, options=options, reliability=reliability, started=started
    )
    found = prediction(decide(question))
    show(found, lambda: [decision_table(found)], decision_lines(found), as_json=as_json)


def show(found: dict[str, Any], tables: Any, lines: list[str], *, as_json: bool) -> None:
    """Print a document, or its tables and sentences; warnings go to stderr."""
    for warning in found["warnings"]:
        typer.echo(f"warning: {warning}", err=True)
    if as_json:
        typer.echo(json.dumps(found, allow_nan=False))
        return
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 160)
    for table in tables():
        console.print(table)
        console.print()
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
