"""Training a model here until the load of its experts is steady, so that it routes naturally."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from benchmarks.bench.instruments import HELD_RATE
from benchmarks.bench.session import print_status
from moe.runs.json_lines import finite

if TYPE_CHECKING:
    from benchmarks.bench.trainer import MeasuredTrainer

WINDOW_STEPS = 50
"""Steps over which a load is averaged: text comes in stretches, and so does the load of a step.

With the tolerance, small models of 16 experts that train on 1,024 tokens a step were steady after
200 to 650 steps: past the peak of their load, and in the median 19% above that of their end."""
TOLERANCE = 0.05
"""Largest change of a steady layer's load from one window to the next, as a fraction."""
RATE_TIMES_WIDTH = 0.384
"""Learning rate times hidden size: 3e-3 at a width of 128, as `moe demo` trains, and less in
proportion to the width (maximal update parametrization with Adam, arXiv:2203.03466, table 3)."""
_RAMP_STEPS = 20
"""Steps over which the learning rate rises."""


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """How a model was warmed up."""

    steps: int
    """Training steps."""
    steady: bool
    """Whether the load of every layer was steady at the end."""
    loads: Sequence[float]
    """Each layer's load (busiest expert over even), mean of the last window."""
    changes: Sequence[float] | None
    """Each layer's load over that of the window before, less one; None: there was none."""
    first_loss: float
    """Of the first step, nats a token."""
    last_loss: float
    """Of the last."""
    learning_rate: float
    """After it has risen."""

    def source(self, store: str) -> dict[str, Any]:
        """Describe the routing of a benchmark, for its record; `store` is what was trained on."""
        return {
            "kind": "warmed up",
            "steps": self.steps,
            "steady": self.steady,
            "criterion": {
                "window_steps": WINDOW_STEPS,
                "largest_change": TOLERANCE,
                "quantity": "each layer's busiest expert over even, mean of a window's steps",
            },
            "busiest_over_even": list(self.loads),
            "changes": None if self.changes is None else list(self.changes),
            "first_loss": finite(self.first_loss),
            "last_loss": finite(self.last_loss),
            "learning_rate": self.learning_rate,
            "store": store,
        }


def warm_up(subject: "MeasuredTrainer", most_steps: int) -> WarmUp:
    """Train until the load is steady, at most `most_steps`; every rank must call it.

    Afterwards the weights stay as they are. A step that the training's guard rejects, as one with
    an infinite loss, ends the warm-up: what follows is not steady.
    """
    rate = RATE_TIMES_WIDTH / subject.experiment.model.hidden_size
    loads: list[Sequence[float]] = []
    losses: list[float] = []
    is_rejected = False
    while len(loads) < most_steps and not is_rejected:
        subject.set_learning_rate(rate * min(1.0, (len(loads) + 1) / _RAMP_STEPS))
        subject.step()
        loads.append(subject.last_loads)
        assert subject.last_result is not None
        losses.append(subject.last_result.loss)
        is_rejected = subject.last_result.rejection is not None
        if subject.engine.is_main:
            print_status(f"warm-up: step {len(loads)} of at most {most_steps}")
        if len(loads) % WINDOW_STEPS == 0 and is_steady(loads):
            break
    subject.set_learning_rate(HELD_RATE)
    return WarmUp(
        steps=len(loads),
        steady=not is_rejected and is_steady(loads),
        loads=_mean_loads(loads[-WINDOW_STEPS:]),
        changes=load_changes(loads),
        first_loss=losses[0],
        last_loss=losses[-1],
        learning_rate=rate,
    )


def is_steady(loads: Sequence[Sequence[float]]) -> bool:
    """Return whether no layer's load changed by more than the tolerance; `loads` as below."""
    changes = load_changes(loads)
    return changes is not None and all(abs(change) <= TOLERANCE for change in changes)


def load_changes(loads: Sequence[Sequence[float]]) -> list[float] | None:
    """Return each layer's load in the last window over the one before, less one.

    None where there are fewer than two windows.

    Args:
        loads: The load of each layer in each step.
    """
    if len(loads) < 2 * WINDOW_STEPS:
        return None
    before = _mean_loads(loads[-2 * WINDOW_STEPS : -WINDOW_STEPS])
    last = _mean_loads(loads[-WINDOW_STEPS:])
    return [new / old - 1 for old, new in zip(before, last, strict=True)]


def _mean_loads(loads: Sequence[Sequence[float]]) -> list[float]:
    return [fmean(layer) for layer in zip(*loads, strict=True)]
