"""Tables and lines of `moe plan`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import expm1
from typing import TYPE_CHECKING, Any

from benchmarks.planning.answer import PlanAnswer
from benchmarks.planning.budget import SECONDS_PER_DAY, RunPlan
from benchmarks.planning.interval import error_band
from benchmarks.planning.job import PlanJob, precision_name
from benchmarks.planning.layout_text import layout_text
from benchmarks.planning.limits import gibibytes, memory_terms
from benchmarks.planning.scaling import ScalingCurve
from benchmarks.text_table import TextTable
from data.plain_text import printable
from parallel.measurement.number_text import readable, significant
from parallel.measurement.units import SECONDS_PER_HOUR
from parallel.planner.prediction import LayoutPrediction

if TYPE_CHECKING:
    from benchmarks.planning.calibrate import Calibrated

FRONT_MARK = "◆"
SHOWN_LIMITS = 3


def layout_table(answer: PlanAnswer) -> TextTable:
    """Return the layouts in their order, those of the Pareto front marked."""
    formats = [] if answer.formats is None else ["precision"]
    table = TextTable(
        "",
        ("", "layout", *formats, "near", "step", "80% interval", "tokens/s/GPU", "TFLOP/s",
         "memory", "J/token", "limits"),
    )  # fmt: skip
    for column in (table.columns[1], table.columns[-1]):
        column.justify = "left"
    for number, one in enumerate(answer.layouts, 1):
        mark = f" {FRONT_MARK}" if answer.is_on_front(one) else ""
        memory = gibibytes(one.memory.total_bytes) + ("" if one.fits else " too much")
        low, high = one.interval
        table.add_row(
            f"{number}{mark}",
            layout_text(one.work).replace(",", " "),
            *(precision_name(one.work.precision) for _ in formats),
            f"+{near}" if (near := len(answer.near(one))) else "",
            readable(one.step_seconds, "s"),
            f"{readable(low, 's')} to {readable(high, 's')}",
            f"{one.tokens_per_second:,.0f}",
            significant(one.tflops),
            memory,
            "–" if one.joules_per_token is None else significant(one.joules_per_token),
            "; ".join(one.limits[:SHOWN_LIMITS]),
        )
    return table


def job_line(job: PlanJob) -> str:
    """Return what was asked, in one line."""
    batch, precision = job.batch, job.precision
    fp8 = "" if precision.fp8 == "none" else f" with FP8 ({precision.fp8})"
    tokens = batch.global_batch_size * batch.seq_len
    return (
        f"{job.name} on {job.num_gpus:,} {job.card.name}: {batch.global_batch_size:,} sequences of"
        f" {batch.seq_len:,} tokens a step ({readable(tokens, 'tokens')}), {precision.dtype}{fp8},"
        f" kernel set {precision.kernels}"
    )


def search_line(answer: PlanAnswer) -> str | None:
    """Return how many layouts were looked at; None where none was searched."""
    found = answer.found
    if found is None:
        return None
    return (
        f"{found.candidates:,} legal ways looked at, {found.predicted:,} of them predicted in full"
        f" and {found.too_large:,} found not to fit; the bounds of all others are slower than the"
        " last one shown. Near: slower layouts of the same tp, pp, ep and etp that leave no more"
        f" memory free. {FRONT_MARK} Pareto front of speed, memory and joules"
        f" ({len(answer.front)} layouts)."
    )


def calibration_table(calibrated: "Calibrated") -> TextTable:
    """Return what the user's own records made of each kind of kernel and link."""
    table = TextTable(
        f"calibrated on {calibrated.records} records",
        ("kind", "points", "measured/modelled", "waits", "bytes", "error before", "after"),
    )
    for kind, one in calibrated.found.kinds.items():
        factors = (one.factor, one.latency_factor, one.transfer_factor)
        table.add_row(
            kind,
            str(one.points),
            *("–" if factor is None else f"× {significant(factor)}" for factor in factors),
            f"{expm1(one.error_before):.1%}",
            f"{expm1(one.error_after):.1%}",
        )
    return table


def calibration_lines(job: PlanJob) -> list[str]:
    """Return where a calibration's records are from, what they leave open, and the interval."""
    if job.calibrated is None:
        return []
    found = job.calibrated.found
    lines = [f"measured on {found.device}"]
    if found.unused:
        why = "; ".join(f"{reason} ({number})" for reason, number in found.unused.items())
        count = sum(found.unused.values())
        lines.append(f"{count} of {job.calibrated.records} records unused: {why}")
    interval = f"80% interval {error_band(job.shape, job.card, job.calibrated).calibration}"
    return [printable(line) for line in (*lines, *found.notes, interval)]


def format_lines(answer: PlanAnswer) -> list[str]:
    """Return the best step of each number format, and which have no layout; of several alone."""
    formats = answer.formats
    if formats is None:
        return []
    each = (f"{name} {readable(one.step_seconds, 's')}" for name, one in formats.best.items())
    left_out = [f"left out: {name}: {reason}" for name, reason in formats.left_out.items()]
    return [f"best step of each precision: {', '.join(each)}", *left_out]


def detail_table(one: LayoutPrediction) -> TextTable:
    """Return one layout's seconds and bytes by term."""
    table = TextTable("", ("busiest stage", "time", "share", "memory of the fullest stage", "size"))
    table.columns[3].justify = "left"
    times = sorted(one.terms.items(), key=lambda item: -item[1])
    sizes = sorted(memory_terms(one.memory).items(), key=lambda item: -item[1])
    blank: Sequence[Any] = ("", 0.0)
    for number in range(max(len(times), len(sizes))):
        term, seconds = times[number] if number < len(times) else blank
        name, size = sizes[number] if number < len(sizes) else blank
        table.add_row(
            term.replace("_", " "),
            readable(seconds, "s") if term else "",
            f"{seconds / one.step_seconds:.1%}" if term else "",
            name,
            gibibytes(size) if name else "",
        )
    return table


_RUN_UNITS = {
    "tokens": "tokens", "joules": "J", "gco2": "gCO2e",
}  # fmt: skip
_RUN_NAMES = {
    "tokens": "tokens", "seconds": "wall time", "gpu_hours": "GPU-hours",
    "joules": "energy of the facility", "money": "money", "gco2": "emissions",
}  # fmt: skip


def run_table(run: RunPlan) -> TextTable:
    """Return what a run needs or reaches, with intervals; what ends it is exact."""
    table = TextTable("", ("run of the best layout", "", "80% interval"))
    for name, each in run.quantities.items():
        if each is None:
            continue
        interval = f"{_run_text(run, name, each.low)} to {_run_text(run, name, each.high)}"
        exact = "as asked" if name == run.bound_by else interval
        table.add_row(_RUN_NAMES[name], _run_text(run, name, each.value), exact)
    return table


def run_lines(run: RunPlan) -> list[str]:
    """Return when a run ends, and what it was assumed to lose to failures."""
    failures = run.reliability
    ends = "beyond a century" if run.ends is None else f"{run.ends:%Y-%m-%d %H:%M %Z}"
    lines = [
        f"starts {run.started:%Y-%m-%d %H:%M %Z}, ends {ends}",
        f"failures: one in {failures['gpu_mtbf_hours']:,g} GPU-hours (every"
        f" {readable(failures['job_mtbf_hours'] * SECONDS_PER_HOUR, 's')} of the job), a checkpoint"
        f" of {failures['checkpoint_seconds']:g} s every"
        f" {readable(failures['checkpoint_interval_s'], 's')}, restarts of"
        f" {failures['restart_seconds']:g} s: wall time"
        f" {failures['wall_over_productive_time'] - 1:.1%} over training"
        f" ({failures['source']})",
    ]
    return lines if run.grid is None else [*lines, f"grid: {run.grid}"]


def _run_text(run: RunPlan, name: str, value: float) -> str:
    if name == "seconds":
        days = value / SECONDS_PER_DAY
        return f"{significant(days)} days" if days >= 1 else readable(value, "s")
    if name == "money":
        return f"{value:,.2f} {run.currency}"
    if name == "gpu_hours":
        return f"{value:,.0f}"
    return readable(value, _RUN_UNITS[name])


def scaling_table(curve: ScalingCurve) -> TextTable:
    """Return one curve; the last count of cards that pays is marked."""
    what = "same batch" if curve.kind == "strong" else "batch grows with the cards"
    table = TextTable(
        f"{curve.kind} scaling ({what})",
        ("cards", "sequences a step", "step", "tokens/s", "tokens/s/GPU", "efficiency", "layout"),
    )
    table.columns[6].justify = "left"
    for point in curve.points:
        mark = " ◀ pays up to here" if point.gpus == curve.pays_up_to else ""
        best, efficiency = point.best, curve.efficiency(point)
        cells = ["–", "–", "–", "–", point.reason or ""]
        if best is not None:
            cells = [
                readable(best.step_seconds, "s"),
                readable(point.tokens_per_second, "tokens/s"),
                f"{best.tokens_per_second:,.0f}",
                "–" if efficiency is None else f"{efficiency:.1%}",
                layout_text(best.work).replace(",", " ") + mark,
            ]
        table.add_row(f"{point.gpus:,}", f"{point.global_batch_size:,}", *cells)
    return table


def validation_table(result: Mapping[str, Any]) -> TextTable:
    """Return errors of predictions by group, each layout counted once."""
    table = TextTable(
        "",
        ("published layouts", "layouts", "rows", "median error", "90th percentile", "in interval"),
    )
    used = sum(row["used"] for row in result["rows"])
    table.add_row(
        "all",
        str(result["layouts"]),
        str(used),
        *(_share(result[key]) for key in ("median_abs_error", "p90_abs_error", "coverage")),
    )
    for column, groups in result["groups"].items():
        for name, group in groups.items():
            errors = (group["median"], group["p90"], group["covered"])
            cells = [str(group["layouts"]), str(group["rows"]), *map(_share, errors)]
            table.add_row(f"{column} {name}", *cells)
    memory = result["memory"]
    error = _share(memory["median_abs_error"])
    table.add_row("peak memory", str(memory["layouts"]), "", error, "", "")
    return table


def not_scored(result: Mapping[str, Any]) -> list[str]:
    """Return a line for each reason for which rows are not scored, the commonest first."""
    reasons = Counter(" ".join(row["reason"].split()) for row in result["rows"] if not row["used"])
    total = len(result["rows"])
    return [f"{count} of {total} rows not scored: {why}" for why, count in reasons.most_common()]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
