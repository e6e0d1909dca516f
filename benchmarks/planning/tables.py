"""Tables and lines of `moe plan`."""

from collections.abc import Sequence
from typing import Any

from benchmarks.planning.answer import PlanAnswer
from benchmarks.planning.job import PlanJob
from benchmarks.planning.layout_text import layout_text
from benchmarks.planning.limits import gibibytes, memory_terms
from benchmarks.text_table import TextTable
from parallel.measurement.number_text import readable, significant
from parallel.planner.prediction import LayoutPrediction

FRONT_MARK = "◆"
SHOWN_LIMITS = 3


def layout_table(answer: PlanAnswer) -> TextTable:
    """Return the layouts in their order, those of the Pareto front marked."""
    table = TextTable(
        "",
        ("", "layout", "step", "80% interval", "tokens/s/GPU", "TFLOP/s", "memory", "J/token",
         "limits"),
    )  # fmt: skip
    for column in (1, 8):
        table.columns[column].justify = "left"
    for number, one in enumerate(answer.layouts, 1):
        mark = f" {FRONT_MARK}" if answer.is_on_front(one) else ""
        memory = gibibytes(one.memory.total_bytes) + ("" if one.fits else " too much")
        low, high = one.interval
        table.add_row(
            f"{number}{mark}",
            layout_text(one.work).replace(",", " "),
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
        f" ({found.too_large:,} do not fit); the bounds of all others are slower than the last one"
        f" shown. {FRONT_MARK} Pareto front of speed, memory and joules among those that fit."
    )


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
