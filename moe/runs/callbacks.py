"""What a training run calls while it runs: callbacks (meters) and loggers (TensorBoard, ...)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

Phase = Literal["train", "evaluate", "checkpoint", "idle"]


@dataclass(frozen=True, kw_only=True)
class RankContext:
    """One rank of a run, as callbacks see it."""

    run_dir: Path
    rank: int
    local_rank: int
    world_size: int
    hostname: str
    device: Literal["cpu", "cuda"]
    gather: Callable[[Any], list[Any] | None]
    """Collect one small picklable object from every rank; the list on rank 0, None elsewhere."""


class Callback(Protocol):
    """Follows a run without touching its arithmetic.

    Every rank has the same callbacks in the same order, so their methods may be collective calls.
    """

    def start(self, context: RankContext, state: Mapping[str, Any] | None) -> None:
        """Start; `state` is what `state()` returned when the resumed checkpoint was written."""

    def phase(self, name: Phase) -> None:
        """Enter another phase, at a step boundary."""

    def step(self, step: int, tokens: int) -> Mapping[str, float | None]:
        """Return columns for the metrics row of `step`, after `tokens` tokens in all."""

    def state(self) -> Mapping[str, Any]:
        """Return totals that must survive a restart (JSON values)."""

    def finish(self) -> Mapping[str, Any]:
        """Finish; return sections for `record.json` (rank 0's are written). A collective call."""


class Logger(Protocol):
    """Shows a run elsewhere (TensorBoard, ...) while it runs; used on rank 0 only."""

    def begin(self, run_dir: Path, record: Mapping[str, Any], step: int) -> None:
        """Start logging after `step`; `record` is the run's record so far."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log named numbers of a step, e.g. `train/loss`."""

    def expert_load(self, step: int, layer: int, tokens: Sequence[float]) -> None:
        """Log the tokens that each expert of a layer received since the last call."""

    def end(self, record: Mapping[str, Any]) -> None:
        """Close; `record` is the final one."""
