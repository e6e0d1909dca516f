"""The guard of a run: rejects steps whose loss or gradient is not finite, or whose loss spikes."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from moe.config.train import TrainConfig


@dataclass(frozen=True, kw_only=True)
class StepRejection:
    """Why a step's update is not made, and what follows."""

    reason: str
    action: Literal["stop", "skip"]
    """End the run, or go on with the next step."""


class StepRejectedError(Exception):
    """Raised between gradients and update; caught in the same step."""

    def __init__(self, rejection: StepRejection, grad_norm: float) -> None:
        super().__init__(rejection.reason)
        self.rejection, self.grad_norm = rejection, grad_norm


class Guard:
    """Judges each step by numbers that are the same on every rank, so that all ranks agree."""

    def __init__(self, train: TrainConfig) -> None:
        self._train = train
        self._losses: deque[float] = deque(maxlen=train.spike_window)
        self._skipped_in_a_row = 0

    def check_loss(self, loss: float) -> StepRejection | None:
        """Return why a step with this loss is rejected, before its update; None if it is not."""
        if not math.isfinite(loss):
            return self._reject(f"the loss is {loss}", self._train.on_nonfinite)
        if self._train.on_spike == "ignore" or len(self._losses) < self._train.spike_window:
            return None
        usual = median(self._losses)
        if loss > self._train.spike_factor * usual:
            return self._reject(
                f"the loss is {loss:.4f}, above spike_factor = {self._train.spike_factor:g} times"
                f" the last {self._train.spike_window} steps' median {usual:.4f}",
                self._train.on_spike,
            )
        return None

    def check_grad_norm(self, grad_norm: float) -> None:
        """Check the gradient norm before the update.

        Raises:
            StepRejectedError: It is not finite.
        """
        if not math.isfinite(grad_norm):
            reason = f"the gradient norm is {grad_norm}"
            raise StepRejectedError(self._reject(reason, self._train.on_nonfinite), grad_norm)

    def accept(self, loss: float) -> None:
        """Record a step whose update was made."""
        self._losses.append(loss)
        self._skipped_in_a_row = 0

    def state(self) -> list[float]:
        """Return what later checks depend on."""
        return list(self._losses)

    def load(self, state: Sequence[float]) -> None:
        """Restore a state."""
        self._losses.extend(state)

    def _reject(self, reason: str, action: Literal["stop", "skip"]) -> StepRejection:
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row > self._train.max_skipped:
            reason += f", and max_skipped = {self._train.max_skipped} steps before it were skipped"
            action = "stop"
        return StepRejection(reason=reason, action=action)
