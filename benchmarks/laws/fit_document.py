"""A fit as a JSON document: what `moe fit` prints."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks.laws.fitting.bootstrap import LEVEL, Resamples
from benchmarks.laws.fitting.extrapolation import (
    LeftOut,
    leave_one_scale_out,
    leave_one_sparsity_out,
)
from benchmarks.laws.fitting.fit import Fit
from benchmarks.laws.fitting.identifiability import Identifiability, identifiability
from benchmarks.laws.fitting.information import aicc
from benchmarks.laws.fitting.profile import profile_intervals
from benchmarks.laws.law import Columns, Law
from benchmarks.laws.residual_trends import Trend

FORMAT = "moescale law 1"
MAX_CANDIDATES = 32
DIGITS = 9
MAX_KEPT_POINTS = 2000


def fit_document(  # noqa: PLR0913 - what a document is made of
    fit: Fit,
    resamples: Resamples,
    trends: Sequence[Trend],
    sparse_columns: Columns,
    source: str,
    warnings: tuple[str, ...],
) -> dict[str, Any]:
    """Return everything that is known of a fit.

    Args:
        fit: The fit.
        resamples: Its bootstrap.
        trends: What its residuals show.
        sparse_columns: Of the points, by which the sparsest are left out.
        source: Where the points are from.
        warnings: Of conventions.
    """
    found = identifiability(fit, resamples)
    law, columns = fit.law, fit.problem.columns
    worst = int(np.argmax(np.abs(fit.residuals)))
    document = {
        "format": FORMAT,
        "law": law.name,
        "title": law.title,
        "formula": law.formula,
        "target": law.target,
        "loss": fit.penalty.name,
        "objective": fit.objective,
        "points": fit.problem.target.size,
        "source": source,
        "coefficients": fit.values,
        "intervals": _intervals(law, resamples, found),
        "profile_intervals": {n: list(side) for n, side in profile_intervals(fit).items()},
        "interval_level": LEVEL,
        "unidentified": list(found.unidentified),
        "identifiability": _identifiability(found),
        "residuals": {
            "rms_log": float(np.sqrt(np.mean(fit.residuals**2))),
            "max_abs_log": float(abs(fit.residuals[worst])),
            "worst_point": worst + 1,
            "trends": [asdict(trend) for trend in trends],
            "structure": [trend.words for trend in trends if trend.found],
        },
        "aicc": aicc(fit),
        "extrapolation": {
            "scale": _left_out(leave_one_scale_out(fit)),
            "sparsity": _left_out(leave_one_sparsity_out(fit, sparse_columns)),
        },
        "conventions": law.conventions.as_json(),
        "notes": list(law.notes),
        "warnings": list(warnings),
        "ranges": {n: [float(c.min()), float(c.max())] for n, c in columns.items()},
        "candidates": _candidates(columns),
        "resamples": [
            [float(f"{x:.{DIGITS}g}") for x in row]
            for row in resamples.coefficients
            if np.isfinite(row).all()
        ],
        "data": _data(fit),
    }
    finite: dict[str, Any] = _finite(document)
    return finite


def _finite(value: Any) -> Any:
    """Return a value in which numbers that are none are null."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _data(fit: Fit) -> dict[str, list[float]] | None:
    """Return the points, from which `moe predict` takes profile intervals."""
    if fit.problem.target.size > MAX_KEPT_POINTS:
        return None
    columns = {**fit.problem.columns, fit.law.target: fit.problem.target}
    return {name: [float(x) for x in column] for name, column in columns.items()}


def _intervals(
    law: Law, resamples: Resamples, found: Identifiability
) -> dict[str, list[float] | None]:
    """Return bootstrap intervals; none for a coefficient that the points do not see at all."""
    blind = {n for d in found.directions if d.half_width is None for n in d.weights}
    return {
        name: None if name in blind else [float(low), float(high)]
        for name, (low, high) in zip(law.coefficients, resamples.intervals(), strict=True)
    }


def _identifiability(found: Identifiability) -> dict[str, Any]:
    return {
        "condition_number": found.condition_number,
        "scaled_condition_number": found.scaled_condition_number,
        "directions": [asdict(direction) for direction in found.directions],
    }


def _left_out(found: LeftOut | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "column": found.column,
        "groups": [asdict(group) for group in found.groups],
        "outermost": asdict(found.outermost),
    }


def _candidates(columns: Columns) -> dict[str, list[float]]:
    """Return the values of columns that have few: what `moe predict` may choose."""
    distinct = {name: np.unique(column) for name, column in columns.items()}
    return {n: [float(v) for v in vs] for n, vs in distinct.items() if vs.size <= MAX_CANDIDATES}
