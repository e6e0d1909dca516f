"""`moe plan`: which layout fits, how fast, how much memory, how many joules, and how sure."""

import json
import sys
from typing import TYPE_CHECKING, Any

import typer

from benchmarks.cli import plan_options as opt
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
    from datetime import datetime
    from pathlib import Path

    from benchmarks.decisions.target_loss import LossTarget
    from benchmarks.planning.answer import PlanAnswer
    from benchmarks.planning.budget import RunPlan, RunRequest
    from benchmarks.planning.job import JobOptions
    from benchmarks.planning.planner import Planner
    from benchmarks.planning.why import Verdict


def plan(  # noqa: PLR0913, PLR0914 - a command's options
    context: typer.Context,
    target: opt.TargetArgument = None,
    *,
    gpus: opt.GpusOption = None,
    gpu: opt.GpuOption = None,
    layout: opt.LayoutOption = None,
    why: opt.WhyOption = None,
    top: opt.TopOption = 10,
    seq_len: opt.SeqLenOption = None,
    global_batch_size: opt.GlobalBatchOption = None,
    micro_batch_size: opt.MicroBatchOption = None,
    precision: opt.PrecisionOption = None,
    routing: opt.RoutingOption = opt.RoutingName.FORCED,
    imbalance: opt.ImbalanceOption = 1.0,
    calibrate: opt.CalibrateOption = None,
    overrides: opt.OverridesOption = None,
    sweep_gpus: opt.SweepOption = None,
    target_tokens: opt.TokensOption = None,
    target_loss: opt.TargetLossOption = None,
    law: opt.LawOption = None,
    budget_gpu_hours: opt.GpuHoursOption = None,
    budget_joules: opt.JoulesOption = None,
    budget_money: opt.MoneyOption = None,
    budget_gco2: opt.Gco2Option = None,
    price: PriceOption = None,
    power_price: PowerPriceOption = None,
    currency: CurrencyOption = None,
    region: opt.RegionOption = None,
    intensity: IntensityOption = None,
    pue: PueOption = None,
    gpu_mtbf_hours: opt.MtbfOption = 50_000.0,
    checkpoint_seconds: opt.CheckpointOption = 60.0,
    restart_seconds: opt.RestartOption = 600.0,
    start: opt.StartOption = None,
    write: opt.WriteOption = False,
    export: opt.ExportOption = None,
    html: opt.HtmlOption = None,
    trace: opt.TraceOption = None,
    validate: opt.ValidateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the layout: speed, memory and joules of every legal one, modelled, with intervals."""
    from dataclasses import replace

    from benchmarks.cli.decision_options import date_of
    from benchmarks.cli.plan_conflicts import refuse_conflicts
    from benchmarks.errors import BenchmarkError
    from benchmarks.planning.budget import RunRequest
    from benchmarks.planning.failures import Reliability
    from benchmarks.planning.job import JobOptions
    from benchmarks.planning.layout_text import parse_layout
    from benchmarks.planning.precisions import answer_in
    from benchmarks.planning.scaling import parse_sweep, scaling_curves
    from benchmarks.planning.why import why as reason

    refuse_conflicts(context)
    if validate is not None:
        _validate(validate, as_json=as_json)
        return
    if target is None or gpus is None or gpu is None:
        raise BenchmarkError("name a model or an experiment, --gpus and --gpu; or --validate FILE")
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
        calibrate=calibrate or (),
        assumptions=assumption_changes(region, intensity, pue, price, power_price, currency),
    )
    request = RunRequest(
        target_tokens=target_tokens,
        gpu_hours=budget_gpu_hours,
        joules=budget_joules,
        money=budget_money,
        gco2=budget_gco2,
        reliability=Reliability(
            gpu_mtbf_hours=gpu_mtbf_hours,
            checkpoint_seconds=checkpoint_seconds,
            restart_seconds=restart_seconds,
        ),
    )
    asked = None if why is None else parse_layout(why)
    counts = None if sweep_gpus is None else parse_sweep(sweep_gpus)
    started = date_of(start)
    planner, found = answer_in(target, options, layout, top)
    needed = _needed(planner, target_loss, law)
    request = replace(request, target_tokens=needed.tokens if needed else target_tokens)
    if request.is_asked:
        is_priced = not (price is None and power_price is None)
        found = replace(found, run=_run(request, found, started, is_priced=is_priced))
    if counts is not None:
        found = replace(found, scaling=scaling_curves(planner, counts))
    verdict = None if asked is None else reason(planner, asked, found.best)
    if export is not None and not found.best.fits:
        raise BenchmarkError("--as: this layout does not fit in memory: choose one that does")
    if write:
        _write(found, options)
    if trace is not None:
        from benchmarks.planning.trace_file import write_trace

        write_trace(trace, planner, found.best.work)
    if html is not None:
        from benchmarks.report.plan_page import write_plan_page

        write_plan_page(html, planner, found)
    if as_json:
        more = _more(found, export, verdict, needed)
        typer.echo(json.dumps(found.as_json() | more, allow_nan=False))
    elif export is not None:
        typer.echo(_exported(found, export))
    else:
        _print(found, verdict, needed)


def _run(
    request: "RunRequest", found: "PlanAnswer", started: "datetime | None", *, is_priced: bool
) -> "RunPlan":
    """Return the run that is asked for; `is_priced`: whether the command line states a price."""
    from benchmarks.planning.budget import check_currency, check_whole_step, run_plan

    if is_priced:
        check_currency(found.job.energy)
    run = run_plan(request, found.best, found.job.energy, started)
    check_whole_step(run, found.best.work.batch)
    return run


def _more(
    found: "PlanAnswer",
    export: opt.ExportName | None,
    verdict: "Verdict | None",
    needed: "LossTarget | None",
) -> dict[str, Any]:
    """Return what the document has beside layouts where it was asked for."""
    more: dict[str, Any] = {} if export is None else {"export": _exported(found, export)}
    if verdict is not None:
        more["why"] = verdict.as_json()
    if needed is not None:
        more["target_loss"] = needed.as_json()
    return more


def _needed(planner: "Planner", loss: float | None, law: str | None) -> "LossTarget | None":
    """Return the tokens that a loss needs by a law; its warnings go to stderr."""
    if loss is None:
        return None
    # Laws load numpy and scipy, which a plan for tokens needs not.
    from benchmarks.decisions.target_loss import loss_target

    needed = loss_target(law or "", loss, planner.job)
    for warning in needed.warnings:
        typer.echo(f"warning: {warning}", err=True)
    return needed


def _validate(file: "Path", *, as_json: bool) -> None:
    """Compare predictions with the published steps of a file."""
    from rich.console import Console

    from benchmarks.planning.tables import not_scored, validation_table
    from benchmarks.planning.validate import validate

    result = validate(file)
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False))
        return
    Console().print(validation_table(result))
    for line in not_scored(result):
        typer.echo(line)


def _write(found: "PlanAnswer", options: "JobOptions") -> None:
    """Write the best layout into the experiment that it was planned for."""
    from benchmarks.errors import BenchmarkError
    from benchmarks.planning.write_layout import write_layout

    path = found.job.path
    if path is None:
        raise BenchmarkError(f"--write: {found.job.name} is no experiment: name its TOML file")
    changed = ("overrides", "seq_len", "global_batch_size", "precision")
    if given := [name for name in changed if getattr(options, name)]:
        option = "--set" if given[0] == "overrides" else f"--{given[0].replace('_', '-')}"
        raise BenchmarkError(f"--write with {option}: the file says otherwise: change it there")
    if not found.best.fits:
        raise BenchmarkError("--write: this layout does not fit in memory: choose one that does")
    write_layout(path, found.best.work)
    typer.echo(f"moe: {path}: [parallel] is written", err=True)


def _exported(found: "PlanAnswer", name: opt.ExportName) -> str:
    from benchmarks.planning import export

    is_megatron = name is opt.ExportName.MEGATRON
    as_text = export.megatron_arguments if is_megatron else export.bridge_settings
    return as_text(found.best.work)


def _print(found: "PlanAnswer", verdict: "Verdict | None", needed: "LossTarget | None") -> None:
    from rich.console import Console

    from benchmarks.planning import tables

    console = Console(width=None if sys.stdout.isatty() else 160)

    def say(line: str | None) -> None:
        if line is not None:
            console.print(line, highlight=False, markup=False, soft_wrap=True)

    say(tables.job_line(found.job))
    say(tables.search_line(found))
    for line in tables.format_lines(found):
        say(line)
    if found.job.calibrated is not None:
        console.print(tables.calibration_table(found.job.calibrated))
    for line in tables.calibration_lines(found.job):
        say(line)
    if verdict is not None:
        for sentence in verdict.sentences:
            say(sentence)
    else:
        console.print(tables.layout_table(found))
        console.print(tables.detail_table(found.best))
    if found.run is not None:
        console.print(tables.run_table(found.run))
        for line in tables.run_lines(found.run):
            say(line)
    say(None if needed is None else needed.text)
    for curve in found.scaling:
        console.print(tables.scaling_table(curve))
        say(curve.verdict)
