"""Runs that differ only in their seed, together: means with intervals."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from os.path import commonprefix
from statistics import fmean, stdev

from benchmarks.comparison.quantities import BY_KEY
from moe.runs.run import Run
from parallel.measurement.measurement import Measurement

# Two-sided 95% quantiles of Student's t for 1 to 30 degrees of freedom; beyond: the normal's.
_T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179,
         2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064,
         2.060, 2.056, 2.052, 2.048, 2.045, 2.042)  # fmt: skip
_NORMAL_95 = 1.960


@dataclass(frozen=True)
class Interval:
    """A mean over seeds; `half_width` is the 95% confidence interval's, `None` for one seed."""

    mean: float
    half_width: float | None
    num_values: int


@dataclass(frozen=True)
class Group:
    """Runs of one experiment on equal machines, with one or more seeds."""

    label: str
    runs: tuple[Run, ...]

    @property
    def key(self) -> str:
        """What names the group in tables and plots."""
        return self.runs[0].run_id

    @cached_property
    def first(self) -> Run:
        """A run that stands for what all share."""
        return self.runs[0]

    @property
    def sparse(self) -> bool:
        """Whether its model has routed experts."""
        return self.first.sparse

    def interval(self, key: str) -> Interval | None:
        """Return a quantity's mean over seeds; `None` where a run lacks it or knows it unlike."""
        parts = [BY_KEY[key].of(run) for run in self.runs]
        known = [part.value for part in parts if part.value is not None]
        return mean_interval(known) if len(known) == len(parts) and alike(parts) else None

    def measurement(self, key: str) -> Measurement:
        """Return a quantity's mean over seeds with the origin of its first value."""
        parts = [BY_KEY[key].of(run) for run in self.runs]
        interval = self.interval(key)
        if interval is None:
            lacking = (part for part in parts if part.value is None)
            sources = ", ".join(dict.fromkeys(part.source for part in parts))
            reason = f"its runs know it in unlike ways: {sources}"
            return next(lacking, Measurement.missing(parts[0].unit, "none", reason))
        spread = interval.half_width if len(parts) > 1 else parts[0].uncertainty
        first = parts[0].to_json()
        return Measurement.from_json({**first, "value": interval.mean, "uncertainty": spread})


def alike(measurements: Sequence[Measurement]) -> bool:
    """Whether known numbers are measured or modelled alike, so that they may be compared."""
    known = [m for m in measurements if m.value is not None]
    return len({(m.kind, m.source, m.boundary) for m in known}) <= 1


def mean_interval(values: Sequence[float]) -> Interval:
    """Return mean and 95% confidence interval (Student's t)."""
    if len(values) < 2:
        return Interval(values[0], None, 1)
    half = t_quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Interval(fmean(values), half, len(values))


def t_quantile(degrees: float) -> float:
    """Return the two-sided 95% quantile of Student's t (degrees rounded down: the wider)."""
    whole = max(1, math.floor(degrees))
    return _T_95[whole - 1] if whole <= len(_T_95) else _NORMAL_95


def difference(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Return `mean(first) - mean(second)` with Welch's interval; none where either has one value.

    B. L. Welch, Biometrika 34 (1947): degrees of freedom by Welch-Satterthwaite.
    """
    gap = fmean(first) - fmean(second)
    smaller = min(len(first), len(second))
    if smaller < 2:
        return Interval(gap, None, smaller)
    a, b = (stdev(part) ** 2 / len(part) for part in (first, second))
    if a + b == 0:
        return Interval(gap, 0.0, smaller)
    degrees = (a + b) ** 2 / (a**2 / (len(first) - 1) + b**2 / (len(second) - 1))
    return Interval(gap, t_quantile(degrees) * math.sqrt(a + b), smaller)


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Group runs that differ in nothing but seed and name, in order of first appearance."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(_identity(run), []).append(run)
    groups = [Group(_label(members), tuple(members)) for members in found.values()]
    return _with_distinct_labels(groups)


def _identity(run: Run) -> str:
    if not run.experiment:
        return f"run {run.path.resolve()}"
    sections = {k: v for k, v in run.experiment.items() if k not in ("name", "slurm", "energy")}
    train = {k: v for k, v in sections.get("train", {}).items() if k != "seed"}
    conditions = [run.record.get(key) for key in ("hardware", "execution", "layout")]
    return json.dumps([{**sections, "train": train}, conditions, run.tokens], sort_keys=True)


def _label(runs: Sequence[Run]) -> str:
    names = sorted({run.name for run in runs})
    shared = commonprefix(names).rstrip("-_. 0123456789") if len(names) > 1 else names[0]
    return shared.removesuffix("seed").rstrip("-_. ") or names[0]


def _with_distinct_labels(groups: list[Group]) -> list[Group]:
    labels = [group.label for group in groups]
    return [
        group
        if labels.count(group.label) == 1
        else Group(f"{group.label} ({group.key})", group.runs)
        for group in groups
    ]
