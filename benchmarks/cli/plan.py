"""`moe plan`: which layout fits, how fast, how much memory, how many joules, and how sure."""

import json
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from data.options import JsonOption

if TYPE_CHECKING:
    from benchmarks.planning.answer import PlanAnswer
    from benchmarks.planning.why import Verdict


class PrecisionName(StrEnum):
    """Number formats that a plan may ask for."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP8 = "fp8"
    FP8_DELAYED = "fp8-delayed"
    FP8_BLOCKWISE = "fp8-blockwise"
    MXFP8 = "mxfp8"


class RoutingName(StrEnum):
    """How tokens reach experts."""

    FORCED = "forced"
    NATURAL = "natural"


def plan(  # noqa: PLR0913, PLR0917 - a command's options
    target: Annotated[
        str,
        typer.Argument(
            metavar="EXPERIMENT|MODEL", help="Experiment, TOML file with [model], or preset."
        ),
    ],
    *,
    gpus: Annotated[int, typer.Option(help="Cards.", min=1)],
    gpu: Annotated[str, typer.Option(help="Card: a shipped name, or a TOML file.")],
    layout: Annotated[
        str | None,
        typer.Option(help="Evaluate only this: tp=4,pp=2,ep=8,... or `own`, the experiment's."),
    ] = None,
    why: Annotated[
        str | None, typer.Option(metavar="LAYOUT", help="Say why this one lost: tp=4,pp=2.")
    ] = None,
    top: Annotated[int, typer.Option(help="Layouts to show.", min=1, max=1000)] = 10,
    seq_len: Annotated[
        int | None, typer.Option(help="Tokens a sequence.  [default: experiment's, or 4096]", min=1)
    ] = None,
    global_batch_size: Annotated[
        int | None,
        typer.Option(help="Sequences a step.  [default: experiment's, or 1024]", min=1, max=2**22),
    ] = None,
    micro_batch_size: Annotated[
        int | None,
        typer.Option(help="Sequences of a forward pass.  [default: searched]", min=1, max=2**22),
    ] = None,
    precision: Annotated[
        PrecisionName | None,
        typer.Option(help="Of matrix products.  [default: experiment's, or bf16]"),
    ] = None,
    routing: Annotated[
        RoutingName, typer.Option(help="Even by force, or as routers choose.")
    ] = RoutingName.FORCED,
    imbalance: Annotated[
        float, typer.Option(help="Memory: busiest experts' tokens over the mean.", min=1, max=1e6)
    ] = 1.0,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the experiment."),
    ] = None,
    pue: Annotated[
        float | None,
        typer.Option(
            help="Facility over IT energy.  [default: experiment's, or 1.2]", min=1, max=100
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find the layout: speed, memory and joules of every legal one, modelled, with intervals."""
    from benchmarks.planning.answer import answer
    from benchmarks.planning.job import JobOptions, read_job
    from benchmarks.planning.layout_text import parse_layout
    from benchmarks.planning.planner import Planner
    from benchmarks.planning.why import why as reason

    options = JobOptions(
        gpus=gpus,
        gpu=gpu,
        overrides=overrides or (),
        seq_len=seq_len,
        global_batch_size=global_batch_size,
        micro_batch_size=micro_batch_size,
        precision=precision,
        routing=routing.value,
        imbalance=imbalance,
        pue=pue,
    )
    asked = None if why is None else parse_layout(why)
    planner = Planner(read_job(target, options))
    found = answer(planner, layout, top)
    verdict = None if asked is None else reason(planner, asked, found.best)
    if as_json:
        more = {} if verdict is None else {"why": verdict.as_json()}
        typer.echo(json.dumps(found.as_json() | more))
        return
    _print(found, verdict)


def _print(found: "PlanAnswer", verdict: "Verdict | None") -> None:
    from rich.console import Console

    from benchmarks.planning.tables import detail_table, job_line, layout_table, search_line

    console = Console(width=None if sys.stdout.isatty() else 160)
    for line in (job_line(found.job), search_line(found)):
        if line is not None:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    if verdict is not None:
        for sentence in verdict.sentences:
            console.print(sentence, highlight=False, markup=False, soft_wrap=True)
        return
    console.print(layout_table(found))
    console.print(detail_table(found.best))
