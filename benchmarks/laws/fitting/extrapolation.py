"""Errors where a law was not fitted: one scale, or one sparsity, left out at a time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.laws.fitting.descent import Data, descend
from benchmarks.laws.fitting.fit import Fit
from benchmarks.laws.law import Columns, FloatArray

MAX_GROUPS = 12
BINS = 6
ITERATIONS = 60
SCALES = ("active_parameters", "parameters", "non_embedding_parameters", "flops", "tokens")
SPARSITIES = (
    "sparsity",
    "activation_ratio",
    "experts",
    "granularity",
    "hidden_granularity",
    "active_experts",
    "bits",
)


@dataclass(frozen=True)
class Group:
    """Points that were left out together, predicted from all others."""

    low: float
    high: float
    """Range of the column."""
    points: int
    rms_log_error: float
    mean_log_error: float
    """Above 0: losses were predicted too high."""
    r_squared: float | None
    """Of the left-out losses; `None` for fewer than three."""


@dataclass(frozen=True)
class LeftOut:
    """One column's groups, in its order."""

    column: str
    groups: tuple[Group, ...]

    @property
    def outermost(self) -> Group:
        """The largest scale, or the sparsest models: extrapolation proper."""
        return self.groups[0 if self.column == "activation_ratio" else -1]


def leave_one_scale_out(fit: Fit) -> LeftOut | None:
    """Leave out each model size; `None` where fewer than three remain to fit from."""
    return _leave_out(fit, SCALES, {})


def leave_one_sparsity_out(fit: Fit, others: Columns | None = None) -> LeftOut | None:
    """Leave out each sparsity (or number of experts, granularity, bits).

    Args:
        fit: The fit.
        others: Columns of its points that the law may lack: laws compare by the same groups.
    """
    return _leave_out(fit, SPARSITIES, others or {})


def _leave_out(fit: Fit, names: tuple[str, ...], others: Columns) -> LeftOut | None:
    columns = {**others, **fit.problem.columns}
    for name in names:
        column = columns.get(name)
        if column is None:
            continue
        groups = _groups(column)
        enough = all((~g).sum() > fit.problem.num_coefficients for g in groups)
        if len(groups) >= 3 and enough:
            return LeftOut(name, _predicted(fit, column, groups))
    return None


def _groups(column: FloatArray) -> list[NDArray[np.bool_]]:
    """Return masks of distinct values, or of bins of equally many points."""
    values = np.unique(column)
    if values.size <= MAX_GROUPS:
        return [column == value for value in values]
    edges = np.unique(np.quantile(column, np.linspace(0, 1, BINS + 1)))
    number = np.clip(np.searchsorted(edges, column, side="right") - 1, 0, edges.size - 2)
    return [number == i for i in range(edges.size - 1) if (number == i).any()]


def _predicted(fit: Fit, column: FloatArray, groups: list[NDArray[np.bool_]]) -> tuple[Group, ...]:
    weights = np.array([~group for group in groups], dtype=float)
    data = Data(np.log(fit.problem.target), weights)
    penalty = fit.penalty.for_many()
    starts = np.repeat(fit.vector[None], len(groups), axis=0)
    found, _ = descend(fit.problem, penalty, data, starts, ITERATIONS)
    with np.errstate(all="ignore"):
        errors = fit.problem.log_predicted(found) - data.target_log
    result = []
    for group, row in zip(groups, errors, strict=True):
        error = row[group]
        result.append(
            Group(
                low=float(column[group].min()),
                high=float(column[group].max()),
                points=int(group.sum()),
                rms_log_error=float(np.sqrt(np.mean(error**2))),
                mean_log_error=float(error.mean()),
                r_squared=_r_squared(data.target_log[group], error),
            )
        )
    return tuple(result)


def _r_squared(target_log: FloatArray, error: FloatArray) -> float | None:
    spread = float(((target_log - target_log.mean()) ** 2).sum())
    return 1 - float((error**2).sum()) / spread if target_log.size >= 3 and spread > 0 else None
