"""How far a run is: totals carried from step to step, and by checkpoints from start to start."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from moe.runs.json_lines import finite
from moe.training.step import StepResult


@dataclass(frozen=True, kw_only=True)
class RunTotals:
    """Totals of a run after `step` steps, over all its starts."""

    step: int = 0
    tokens: int = 0
    """Read so far, padding not included."""
    training_flops: float | None = 0.0
    """FLOPs of training on them; None where a checkpoint from before they were counted goes on."""
    rejected_steps: int | None = 0
    """Steps whose update was not made; None where a checkpoint from before they were counted goes
    on."""
    stream_hash: str = ""
    """Of every sample trained on so far; the same on any ranks, after any restart."""
    train_time_s: float = 0.0
    """Seconds of training steps."""
    train_loss: float = math.nan
    """Of the last step; not a number before the first one."""

    @classmethod
    def from_checkpoint(cls, state: Mapping[str, Any]) -> Self:
        """Return the totals that a checkpoint's state holds (`RUN_KEYS`)."""
        names = ("step", "tokens", "stream_hash", "train_time_s")
        loss = state.get("train_loss")
        values = {name: state[name] for name in names}
        return cls(
            **values,
            training_flops=state.get("training_flops"),
            rejected_steps=state.get("rejected_steps"),
            train_loss=math.nan if loss is None else loss,
        )

    def as_checkpoint_state(self) -> dict[str, Any]:
        """Return what a checkpoint's state holds of the totals; its step is in it anyway."""
        return {
            "tokens": self.tokens,
            "training_flops": self.training_flops,
            "rejected_steps": self.rejected_steps,
            "stream_hash": self.stream_hash,
            "train_time_s": self.train_time_s,
            "train_loss": finite(self.train_loss),
        }

    def after(self, result: StepResult, elapsed_s: float) -> Self:
        """Return the totals after one more step, which took `elapsed_s` seconds."""
        step = self.step + 1
        flops, rejected = self.training_flops, self.rejected_steps
        link = f"{self.stream_hash} {step} {result.checksum}"
        return replace(
            self,
            step=step,
            tokens=self.tokens + result.tokens,
            training_flops=None if flops is None else flops + result.flops,
            rejected_steps=None if rejected is None else rejected + (result.rejection is not None),
            stream_hash=hashlib.sha256(link.encode()).hexdigest()[:16],
            train_time_s=self.train_time_s + elapsed_s,
            train_loss=result.loss,
        )
