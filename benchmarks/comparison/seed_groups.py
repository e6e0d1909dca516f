"""Runs that differ only in their seed, grouped: means with intervals."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from os.path import commonprefix

from benchmarks.comparison.quantities import BY_KEY
from moe.runs.run import Run
from parallel.measurement.intervals import MeanInterval, mean_interval
from parallel.measurement.measurement import Measurement, comparable


@dataclass(frozen=True)
class SeedGroup:
    """Runs of one experiment on equal machines, with one or more seeds."""

    label: str
    runs: tuple[Run, ...]

    @property
    def key(self) -> str:
        """Unique name of the group in tables and plots."""
        return self.runs[0].run_id

    @cached_property
    def first(self) -> Run:
        """The first run; it stands for what all runs of the group share."""
        return self.runs[0]

    @property
    def sparse(self) -> bool:
        """Whether its model has routed experts."""
        return self.first.sparse

    @property
    def final_loss(self) -> float:
        """Mean held-out loss at the end, nats/token; infinite where it is unknown."""
        interval = self.interval("loss")
        return interval.mean if interval else math.inf

    def interval(self, key: str) -> MeanInterval | None:
        """Return a quantity's mean over seeds; `None` if a run lacks it or its meters differ."""
        parts = [BY_KEY[key].of(run) for run in self.runs]
        known = [part.value for part in parts if part.value is not None]
        return mean_interval(known) if len(known) == len(parts) and comparable(parts) else None

    def measurement(self, key: str) -> Measurement:
        """Return a quantity's mean over seeds, with the origin of the first run's value."""
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


def group_runs(runs: Sequence[Run]) -> list[SeedGroup]:
    """Group runs that differ only in seed and name, in order of first appearance."""
    by_identity: dict[str, list[Run]] = {}
    for run in runs:
        by_identity.setdefault(_identity(run), []).append(run)
    groups = [SeedGroup(_label(members), tuple(members)) for members in by_identity.values()]
    return _with_distinct_labels(groups)


def _identity(run: Run) -> str:
    if not run.experiment:
        return f"run {run.path.resolve()}"
    sections = {k: v for k, v in run.experiment.items() if k not in ("name", "slurm", "energy")}
    train = {k: v for k, v in sections.get("train", {}).items() if k != "seed"}
    conditions = [run.record.get(key) for key in ("hardware", "execution", "layout")]
    return json.dumps(
        [{**sections, "train": train}, conditions, run.tokens], sort_keys=True, default=str
    )


def _label(runs: Sequence[Run]) -> str:
    names = sorted({run.name for run in runs})
    shared = commonprefix(names).rstrip("-_. 0123456789") if len(names) > 1 else names[0]
    return shared.removesuffix("seed").rstrip("-_. ") or names[0]


def _with_distinct_labels(groups: list[SeedGroup]) -> list[SeedGroup]:
    labels = [group.label for group in groups]
    return [
        group
        if labels.count(group.label) == 1
        else SeedGroup(f"{group.label} ({group.key})", group.runs)
        for group in groups
    ]
