"""What a training run tells its observers (meters, trackers), and what they give back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

Phase = Literal["train", "evaluate", "checkpoint", "idle"]


@dataclass(frozen=True, kw_only=True)
class RunPlace:
    """One rank's place in a run, handed to observers at the start."""

    run_dir: Path
    rank: int
    local_rank: int
    world_size: int
    hostname: str
    device: Literal["cpu", "cuda"]
    gather: Callable[[Any], list[Any] | None]
    """Collect one small picklable object from every rank; the list on rank 0, None elsewhere."""


class Observer(Protocol):
    """Watches a run from outside its arithmetic. Every rank has one; calls come in rank order."""

    def start(self, place: RunPlace, state: Mapping[str, Any] | None) -> None:
        """Begin; `state` is what `state()` returned when the resumed checkpoint was written."""

    def phase(self, name: Phase) -> None:
        """Another phase begins, at a step boundary."""

    def step(self, step: int, tokens: int) -> Mapping[str, float | None]:
        """A step ended after `tokens` tokens in all; returns columns for its metrics row."""

    def state(self) -> Mapping[str, Any]:
        """Return totals that must survive a restart (JSON values)."""

    def finish(self) -> Mapping[str, Any]:
        """End; returns sections for `record.json` (rank 0's are written). A collective call."""


class Tracker(Protocol):
    """Shows a run elsewhere (TensorBoard, ...), while it runs; lives on rank 0 only."""

    def begin(self, run_dir: Path, record: Mapping[str, Any], step: int) -> None:
        """Training goes on after `step`; `record` is what `record.json` holds so far."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Take named numbers of a step, e.g. `train/loss`."""

    def expert_load(self, step: int, layer: int, tokens: Sequence[float]) -> None:
        """Take the tokens that each expert of a layer got since the last call."""

    def end(self, record: Mapping[str, Any]) -> None:
        """Close; `record` is the final one."""
