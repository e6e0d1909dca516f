"""Errors of the planner over published rows, by row, by layout and by group."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from parallel.errors import ParallelError
from parallel.planner.flops import TERA, training_flops_per_token
from parallel.planner.step.parameters import StepParameters
from parallel.planner.validation.jobs import Job, Resolver, UnusableRowError, jobs_of
from parallel.planner.validation.published import published_tflops
from parallel.planner.validation.rows import PublishedRow
from parallel.planner.validation.uncertainty import likely_seconds, spread_of

UNEXPLAINED = {
    "EFA": "on EFA neither hosts nor transports are those that the model knows: predicted, not"
    " scored"
}
"""Networks whose rows no stated condition explains (docs/explanation/planner_accuracy.md)."""


class Predictor(Protocol):
    """Predicts jobs; never told what was published."""

    @property
    def parameters(self) -> StepParameters:
        """What it knows of steps, and how surely."""

    def memory_bytes(self, job: Job) -> int:
        """Return the peak of what tensors take on a rank."""

    def fits(self, job: Job) -> bool:
        """Return whether a job fits in its card's memory."""

    def step_seconds(self, job: Job) -> float:
        """Return the seconds of one step."""


@dataclass(frozen=True, kw_only=True)
class RowResult:
    """A row beside what the planner says of it."""

    row: PublishedRow
    reason: str | None = None
    """Why it is not scored; None where it is."""
    predicted: float | None = None
    """TFLOP/s a card."""
    interval: tuple[float, float] | None = None
    memory_bytes: int | None = None
    published: float | None = None
    """TFLOP/s a card."""
    assumed: tuple[str, ...] = ()
    """What the row does not say: the values that were tried."""
    jobs: tuple[Job, ...] = ()
    """Its readings."""

    @property
    def error(self) -> float | None:
        """Predicted over published, less one."""
        if self.predicted is None or not self.published:
            return None
        return self.predicted / self.published - 1

    @property
    def is_used(self) -> bool:
        """Whether the row counts."""
        return self.reason is None

    def as_json(self) -> dict[str, Any]:
        """Return the row's cells and the results (contract of `moe plan --validate`)."""
        return {
            **self.row.values(),
            "used": self.is_used,
            "reason": self.reason,
            "assumed": list(self.assumed),
            "predicted_tflops_per_gpu": self.predicted,
            "predicted_interval": None if self.interval is None else list(self.interval),
            "predicted_memory_bytes": self.memory_bytes,
            "published_tflops_per_gpu": self.published,
            "error": self.error,
        }


def score_row(row: PublishedRow, resolve: Resolver, predictor: Predictor) -> RowResult:
    """Predict one row, if it says enough.

    Raises:
        ParallelError: A cell is wrong.
    """
    try:
        shape = resolve(row)
        published = published_tflops(row, shape, row.whole("seq_len"))
        jobs = jobs_of(row, shape, predictor.fits)
        jobs, readings = _timed(jobs, predictor)
    except UnusableRowError as error:
        return RowResult(row=row, reason=str(error))
    likely = likely_seconds(readings, spread_of(row, jobs[0], predictor.parameters))
    batch = jobs[0].work.batch
    flops = training_flops_per_token(shape, batch.seq_len)
    tokens = batch.global_batch_size * batch.seq_len / jobs[0].work.placement.num_ranks
    speed = tokens * flops / TERA
    return RowResult(
        row=row,
        reason=_why_not_scored(row, published),
        predicted=speed / likely.seconds,
        interval=(speed / likely.high, speed / likely.low),
        memory_bytes=max(predictor.memory_bytes(job) for job in jobs),
        published=published,
        assumed=tuple(sorted({text for job in jobs for text in job.assumed})),
        jobs=tuple(jobs),
    )


def _timed(jobs: Sequence[Job], predictor: Predictor) -> tuple[list[Job], list[float]]:
    """Return the jobs that the card's file knows enough for, and their seconds.

    Raises:
        UnusableRowError: It does for none.
    """
    timed, readings, fault = list[Job](), list[float](), None
    for job in jobs:
        try:
            readings.append(predictor.step_seconds(job))
        except ParallelError as error:
            fault = error
            continue
        timed.append(job)
    if not timed:
        raise UnusableRowError(str(fault))
    return timed, readings


def _why_not_scored(row: PublishedRow, published: float | None) -> str | None:
    if published is None:
        return "states no speed"
    if doubt := row.text("doubtful"):
        return f"doubtful: {doubt}"
    return UNEXPLAINED.get(row.text("fabric") or "")


@dataclass(frozen=True)
class ErrorSummary:
    """Absolute errors of some layouts; a layout's error is the median of its rows'."""

    layouts: int
    rows: int
    median: float
    p90: float
    covered: float
    """Share of rows whose published speed lies inside the interval."""


def summarize(results: Iterable[RowResult]) -> ErrorSummary | None:
    """Summarize the rows that are scored; None where there are none."""
    by_layout, covered, rows = defaultdict[str, list[float]](list), 0, 0
    for result in results:
        if not result.is_used or result.error is None or result.interval is None:
            continue
        layout = result.row.text("layout_id") or f"line {result.row.line}"
        by_layout[layout].append(abs(result.error))
        rows += 1
        low, high = result.interval
        covered += low <= (result.published or 0) <= high
    if not by_layout:
        return None
    errors = sorted(statistics.median(values) for values in by_layout.values())
    return ErrorSummary(len(errors), rows, statistics.median(errors), _p90(errors), covered / rows)


def summaries(results: Sequence[RowResult], column: str) -> dict[str, ErrorSummary]:
    """Summarize by the values of a column."""
    groups = defaultdict[str, list[RowResult]](list)
    for result in results:
        groups[result.row.text(column) or "not stated"].append(result)
    found = {name: summarize(group) for name, group in sorted(groups.items())}
    return {name: summary for name, summary in found.items() if summary is not None}


def _p90(values: Sequence[float]) -> float:
    """Return the 90th percentile, interpolated."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=10, method="inclusive")[-1]


def all_scored(
    rows: Iterable[PublishedRow], resolve: Resolver, predictor: Predictor
) -> list[RowResult]:
    """Predict every row, in the file's order.

    Raises:
        ParallelError: A cell is wrong; names its line.
    """
    return [score_row(row, resolve, predictor) for row in rows]
