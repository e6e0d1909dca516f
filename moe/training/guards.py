"""Guards of a run: steps whose loss or gradient is not finite, or whose loss jumps."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from moe.config.train import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Why a step's update is not made."""

    reason: str
    action: Literal["stop", "skip"]


class RefusedUpdate(Exception):  # noqa: N818 - an outcome, caught in the same step
    """Raised between gradients and update."""

    def __init__(self, fault: Fault, grad_norm: float) -> None:
        super().__init__(fault.reason)
        self.fault, self.grad_norm = fault, grad_norm


class Guard:
    """Judges each step by numbers that are the same on every rank, so that all decide alike."""

    def __init__(self, train: TrainConfig) -> None:
        self._train = train
        self._losses: deque[float] = deque(maxlen=train.spike_window)
        self._skipped_in_a_row = 0

    def judge_loss(self, loss: float) -> Fault | None:
        """Judge a loss before the update."""
        if not math.isfinite(loss):
            return self._fault(f"the loss is {loss}", self._train.on_nonfinite)
        if self._train.on_spike == "ignore" or len(self._losses) < self._train.spike_window:
            return None
        usual = median(self._losses)
        if loss > self._train.spike_factor * usual:
            return self._fault(
                f"the loss is {loss:.4f}, above spike_factor = {self._train.spike_factor:g} times"
                f" the last {self._train.spike_window} steps' median {usual:.4f}",
                self._train.on_spike,
            )
        return None

    def judge_norm(self, grad_norm: float) -> None:
        """Judge the gradient norm.

        Raises:
            RefusedUpdate: It is not finite.
        """
        if not math.isfinite(grad_norm):
            fault = self._fault(f"the gradient norm is {grad_norm}", self._train.on_nonfinite)
            raise RefusedUpdate(fault, grad_norm)

    def accept(self, loss: float) -> None:
        """Count a step whose update was made."""
        self._losses.append(loss)
        self._skipped_in_a_row = 0

    def state(self) -> list[float]:
        """Return what later judgements depend on."""
        return list(self._losses)

    def load(self, state: Sequence[float]) -> None:
        """Go on from a state."""
        self._losses.extend(state)

    def _fault(self, reason: str, action: Literal["stop", "skip"]) -> Fault:
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row > self._train.max_skipped:
            reason += f", and max_skipped = {self._train.max_skipped} steps before it were skipped"
            action = "stop"
        return Fault(reason=reason, action=action)
