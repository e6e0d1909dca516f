"""What a token of a sparse model takes over one of a dense model of equal width and FLOPs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.study.leverage import DENSE


@dataclass(frozen=True)
class TimeRatio:
    """Measured while other runs of the study ran beside."""

    experts: int
    median: float
    low: float
    high: float
    """Least and greatest of the pairs."""
    pairs: int

    def as_json(self) -> dict[str, Any]:
        """Return all of it."""
        return asdict(self)


def time_ratios(rows: Sequence[Mapping[str, Any]]) -> list[TimeRatio]:
    """Return the ratio of seconds a token for each number of experts, over pairs of runs."""
    speeds = {_key(row): row["tokens_per_s"] for row in rows if row["tokens_per_s"]}
    found: dict[int, list[float]] = {}
    for (experts, *others), speed in speeds.items():
        dense = speeds.get((DENSE, *others))
        if experts != DENSE and dense is not None:
            found.setdefault(experts, []).append(dense / speed)
    return [
        TimeRatio(experts, float(np.median(ratios)), min(ratios), max(ratios), len(ratios))
        for experts, ratios in sorted(found.items())
    ]


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return int(row["experts"]), row["hidden_size"], row["asked_held"], row["seed"]
