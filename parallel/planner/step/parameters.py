"""What training steps add to kernels that were timed alone: `step.toml`, fitted on whole steps.

Kernel tables are of clean runs: one kind of kernel, back to back, on a board without anything else
to do. A step of training runs at the clocks that hold for hours, between small kernels, collectives
and a host that has to keep up. Each number here is shared by all models and layouts.
"""

import tomllib
from functools import cache
from importlib.resources import files
from math import hypot

from parallel.frozen_model import FrozenModel
from parallel.hardware.card import Card
from parallel.hardware.kernel_parameters import NotNegative, Positive, Share


class Spread(FrozenModel):
    """Standard deviations of ln(measured / predicted) seconds of a step, on rows not fitted on."""

    dense: Positive
    """Dense layouts of which all deciding flags are known."""
    dense_unknown: Positive
    """Dense layouts with any of them unknown, beyond what the readings differ by."""
    sparse: Positive
    sparse_unknown: Positive
    card: Positive
    """What a card adds of which no step was measured: an error of its own, added in squares."""


class StepParameters(FrozenModel):
    """Fitted by `parallel.planner.calibration.fit_steps`."""

    bf16_stretch: Positive
    """Time of matrix products in BF16 in a step over their time back to back."""
    fp8_stretch: Positive
    """The same in FP8, of whatever recipe."""
    attention_stretch: Positive
    """The same of fused attention."""
    stream_stretch: Positive
    """The same of kernels that memory bandwidth limits."""
    gap_seconds: NotNegative
    """Seconds that the card loses at each kernel, however small: start, drain and the next one."""
    expert_gap_seconds: NotNegative
    """Seconds lost between two kernels of a loop over experts."""
    launch_seconds: NotNegative
    """Seconds of the host for one kernel: Python, autograd and launch."""
    exchange_stretch: Positive
    """Time of expert exchanges in a step over their time alone."""
    hidden_share: Share
    """Share of what the windows of overlapped exchanges could hide that they do hide."""
    chunk_stretch: Positive
    """Time of a product in chunks, beside its tensor-parallel collective, over its time whole."""
    layer_step_seconds: NotNegative
    """Seconds that each layer of a rank adds to a step: norms of its gradients, its tensors'
    updates."""
    step_seconds: NotNegative
    """Seconds of a step that no layer explains: data, logging, norms, launch of the optimizer."""
    measured_cards: tuple[str, ...]
    """Cards with published steps, by which the spreads were told."""
    spread: Spread

    def spread_on(self, spread: float, card: Card) -> float:
        """Return a spread of steps on a card: wider where none was measured."""
        measured = card.name in self.measured_cards
        return spread if measured else hypot(spread, self.spread.card)

    def on(self, card: Card) -> "StepParameters":
        """Return the parameters for a card; none were fitted on CPUs, which launch nothing."""
        if card.architecture != "cpu":
            return self
        ones = dict.fromkeys((name for name in vars(self) if name.endswith("_stretch")), 1.0)
        none = dict.fromkeys((name for name in vars(self) if name.endswith("_seconds")), 0.0)
        return self.model_copy(update=ones | none)


@cache
def step_parameters() -> StepParameters:
    """Return the shipped parameters."""
    text = (files("parallel.planner.step") / "step.toml").read_text(encoding="utf-8")
    return StepParameters.model_validate(tomllib.loads(text))


def training_card(card: Card, parameters: StepParameters) -> Card:
    """Return the card as its kernels run inside a step."""
    kernels = card.kernels
    own = kernels.training_stretch
    bf16 = parameters.bf16_stretch * own.get("bf16", 1.0)
    fp8 = parameters.fp8_stretch * own.get("fp8", 1.0)
    attention = parameters.attention_stretch * own.get("attention", 1.0)
    stretches = {f"gemm.{name}": fp8 for name in (*kernels.matrix, "mxfp8")}
    stretches |= {"gemm.bf16": bf16, "gemm.fp32": bf16}
    stretches |= {"attention.forward": attention, "attention.backward": attention}
    factors = {kind: kernels.machine_factor(kind) * stretch for kind, stretch in stretches.items()}
    changed = kernels.model_copy(
        update={
            "machine_factors": factors,
            "stream_efficiency": kernels.stream_efficiency / parameters.stream_stretch,
            "gather_efficiency": kernels.gather_efficiency / parameters.stream_stretch,
        }
    )
    return card.model_copy(update={"kernels": changed})
