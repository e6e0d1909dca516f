"""Sparse runs beside the dense ones of equal width, FLOPs and seed: loss, and time of a token."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.study.kinds import DENSE
from parallel.measurement.intervals import mean_interval

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Pairs:
    """All pairs of one number of experts."""

    experts: int
    count: int
    lower: int
    """Pairs in which the sparse loss is lower."""
    cells: int
    """Widths and budgets: pairs of one cell differ in their seed."""
    mean_gap: float
    """Dense minus sparse loss, nats per token: mean over cells of the mean over seeds."""
    gap_half_width: float | None
    """Of its 95% interval over cells (Student's t), as seeds of a cell are not independent of the
    cell's gap; `None` of fewer than two cells."""
    median_time: float | None
    least_time: float | None
    greatest_time: float | None
    """Seconds a token, sparse over dense, measured while other runs of the study ran beside."""

    def as_json(self) -> dict[str, Any]:
        """Return all of it."""
        return asdict(self)


def pairs_of(rows: Sequence[Row]) -> list[Pairs]:
    """Return what pairs of runs say, for each number of experts."""
    dense = {_key(row): row for row in rows if row["experts"] == DENSE}
    by_experts: dict[int, list[tuple[Row, Row]]] = {}
    for row in rows:
        if row["experts"] != DENSE and _key(row) in dense:
            by_experts.setdefault(int(row["experts"]), []).append((dense[_key(row)], row))
    return [_summary(experts, found) for experts, found in sorted(by_experts.items())]


def _key(row: Row) -> tuple[Any, ...]:
    return row["hidden_size"], row["asked_held"], row["seed"]


def _summary(experts: int, pairs: Sequence[tuple[Row, Row]]) -> Pairs:
    gaps = [dense["loss"] - sparse["loss"] for dense, sparse in pairs]
    cells: dict[tuple[Any, ...], list[float]] = {}
    for (dense, _sparse), gap in zip(pairs, gaps, strict=True):
        cells.setdefault((dense["hidden_size"], dense["asked_held"]), []).append(gap)
    times = [
        dense["tokens_per_s"] / sparse["tokens_per_s"]
        for dense, sparse in pairs
        if dense["tokens_per_s"] and sparse["tokens_per_s"]
    ]
    mean = mean_interval([fmean(found) for found in cells.values()])
    return Pairs(
        experts=experts,
        count=len(pairs),
        lower=sum(one > 0 for one in gaps),
        cells=len(cells),
        mean_gap=mean.mean,
        gap_half_width=mean.half_width,
        median_time=float(np.median(times)) if times else None,
        least_time=min(times, default=None),
        greatest_time=max(times, default=None),
    )
