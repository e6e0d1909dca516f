"""Whether residuals show structure: a level that changes along a column that a law should explain.

The Kruskal-Wallis test compares the residuals of groups of a column's values; being one of ranks,
it bears outliers. A trend counts if chance is an unlikely cause and it explains more than a little.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.laws.law import Columns, FloatArray
from parallel.measurement.number_text import counted

Indices = NDArray[np.intp]
GROUPS = 8
LEAST_GROUP = 3
CHANCE = 1e-3
"""A trend is less likely than this by chance, shared among the columns that are looked at."""
LEAST_MEDIAN = 1e-6
"""A trend moves some group's median by more: below it residuals are those of rounding."""
SHARE = 0.05
"""A trend explains at least this part of the variance of the residuals' ranks."""


@dataclass(frozen=True)
class Group:
    """Residuals of points with alike values of a column."""

    low: float
    high: float
    points: int
    median_log: float
    """Median of ln(predicted) - ln(observed): above 0 is predicted too high."""


@dataclass(frozen=True)
class Trend:
    """The residuals along one column."""

    column: str
    groups: tuple[Group, ...]
    p_value: float
    share: float
    """Part of the variance of ranks that the groups explain (epsilon squared)."""
    found: bool
    """Whether there is structure."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Trend":
        """Return a trend from what a fit's document holds of it."""
        groups = tuple(Group(**group) for group in values["groups"])
        return cls(**{**values, "groups": groups})

    @property
    def words(self) -> str:
        """The trend in words."""
        name = self.column.replace("_", " ")
        if not self.found:
            return f"no structure along {name} (p = {self.p_value:.2g})"
        parts = [_percent(g.median_log) for g in self.groups]
        top = max(self.groups, key=lambda g: abs(g.median_log))
        first, last = counted(self.groups[0].low), counted(self.groups[-1].high)
        return (
            f"residuals change with {name}: medians from {parts[0]} at {first} to"
            f" {parts[-1]} at {last}, most {_percent(top.median_log)} at"
            f" {counted(top.low)} to {counted(top.high)}; that explains {self.share:.0%} of"
            f" their ranks' variance (p = {self.p_value:.1g})"
        )


def _percent(log: float) -> str:
    return f"{100 * np.expm1(log):+.2f}%"


def residual_trends(columns: Columns, residuals: FloatArray) -> tuple[Trend, ...]:
    """Return the trend along each column that has at least two groups of three points."""
    split = {name: _groups(column) for name, column in columns.items()}
    split = {name: groups for name, groups in split.items() if len(groups) > 1}
    return tuple(
        _trend(name, columns[name], residuals, groups, len(split)) for name, groups in split.items()
    )


def _groups(column: FloatArray) -> list[Indices]:
    """Return indices of points by value, or of about equally many points in order."""
    values = np.unique(column)
    if values.size <= GROUPS:
        found: Iterable[Indices] = (np.flatnonzero(column == value) for value in values)
    else:
        edges = np.unique(np.quantile(column, np.linspace(0, 1, GROUPS + 1)[1:-1]))
        number = np.searchsorted(edges, column, side="left")
        found = (np.flatnonzero(number == i) for i in range(edges.size + 1))
    return [index for index in found if index.size >= LEAST_GROUP]


def _trend(
    name: str, column: FloatArray, residuals: FloatArray, groups: list[Indices], tests: int
) -> Trend:
    from scipy.special import chdtrc

    statistic = _kruskal_wallis([residuals[index] for index in groups])
    points, freedom = sum(index.size for index in groups), len(groups) - 1
    p_value = float(chdtrc(freedom, statistic))
    share = max(0.0, (statistic - freedom) / max(1, points - freedom - 1))
    found = tuple(
        Group(
            float(column[index].min()),
            float(column[index].max()),
            int(index.size),
            float(np.median(residuals[index])),
        )
        for index in groups
    )
    visible = any(abs(group.median_log) > LEAST_MEDIAN for group in found)
    return Trend(
        column=name,
        groups=found,
        p_value=p_value,
        share=share,
        found=visible and p_value < CHANCE / tests and share > SHARE,
    )


def _kruskal_wallis(samples: list[FloatArray]) -> float:
    """Return the statistic H; `scipy.stats` has it too, and takes seconds to import."""
    everything = np.concatenate(samples)
    ranks = np.empty(everything.size)
    ranks[np.argsort(everything, kind="stable")] = np.arange(1, everything.size + 1)
    parts = np.split(ranks, np.cumsum([sample.size for sample in samples])[:-1])
    middle = (everything.size + 1) / 2
    between = sum(part.size * (float(part.mean()) - middle) ** 2 for part in parts)
    return 12 * between / (everything.size * (everything.size + 1))
