"""Expert load of a run over layers, experts and time: how evenly tokens were routed."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from moe.runs.run import Run

# "At the end" is this last fraction of training.
FINAL_FRACTION = 0.25
MAX_COLUMNS = 120


@dataclass(frozen=True)
class LoadMaps:
    """Expert load relative to a uniform one: 1 is even, 0 an expert that got no tokens."""

    layers: list[int]
    by_expert: list[list[float]]
    """[layer][expert], mean over the last quarter of training."""
    steps: list[int]
    busiest: list[list[float]]
    """[layer][step]: load of the layer's busiest expert."""

    @property
    def worst(self) -> float:
        """Load of the busiest expert of any layer at the end."""
        return max(max(row) for row in self.by_expert)

    @property
    def idle_experts(self) -> int:
        """Number of experts with under a tenth of the uniform load at the end."""
        return sum(load < 0.1 for row in self.by_expert for load in row)


def load_maps(run: Run) -> LoadMaps | None:
    """Return the run's load maps; `None` for a dense model, or where no load was logged."""
    rows = [row for row in run.expert_load if row["counts"]]
    if not rows:
        return None
    layers = list(rows[-1]["layers"])
    final = rows[-max(1, round(FINAL_FRACTION * len(rows))) :]
    by_expert = [
        _relative(_summed([row["counts"][i] for row in final])) for i in range(len(layers))
    ]
    windows = _windows(rows)
    busiest = [
        [fmean(max(_relative(row["counts"][i])) for row in window) for window in windows]
        for i in range(len(layers))
    ]
    return LoadMaps(layers, by_expert, [window[-1]["step"] for window in windows], busiest)


def _relative(counts: Sequence[float]) -> list[float]:
    total = sum(counts)
    return [count * len(counts) / total if total else 0.0 for count in counts]


def _summed(rows: Sequence[Sequence[float]]) -> list[float]:
    return [sum(column) for column in zip(*rows, strict=True)]


def _windows(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    size = -(-len(rows) // MAX_COLUMNS)
    return [rows[i : i + size] for i in range(0, len(rows), size)]
