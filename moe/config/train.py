"""The `[train]` section: batch, optimizer, schedule, intervals."""

import math
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from data.frozen_model import FrozenModel

MOST_STEPS = 2**40
LARGEST_BATCH = 2**22
"""Sequences. With `MOST_STEPS`, samples are counted in 62 bits."""

HIGHEST_RATE = 1e30
"""Of learning: no weight in 32 bits outlives a step beyond it."""


class TrainConfig(FrozenModel):
    """The `[train]` section; lengths are in tokens a sequence, batch sizes in sequences."""

    mode: Literal["pretrain", "sft", "dpo"] = "pretrain"
    """What is learned: the next token of text; the answers of conversations (supervised
    fine-tuning); which answer of a pair is preferred (DPO, arXiv:2305.18290)."""
    init: Path | None = None
    """Weights to start from: a run directory, a checkpoint, or what `moe convert` made; `[model]`
    may then be left out. In mode dpo this is the frozen reference too. Default: random."""
    trainable: tuple[str, ...] = Field(default=("*",), min_length=1)
    """Patterns of names of the parameters that learn, the rest is frozen: `*.router.*` are the
    routers, `*.mlp.experts.*` the experts, `decoder.layers.3.*` one layer. Names are those of
    checkpoints, whatever the kernel set; those of the model's modules are taken as well."""
    dpo_beta: float | None = Field(default=None, gt=0)
    """Strength of the tie to the reference in mode dpo. Default: 0.1."""
    steps: int = Field(gt=0, le=MOST_STEPS)
    """Optimizer steps."""
    seq_len: PositiveInt
    """Tokens a sequence."""
    micro_batch_size: PositiveInt = 1
    """Sequences of one forward pass on one data-parallel rank."""
    global_batch_size: int = Field(gt=0, le=LARGEST_BATCH)
    """Sequences of one optimizer step over all ranks."""
    seed: int = Field(default=0, ge=0)
    """Seed of initial weights."""
    learning_rate: float = Field(default=3e-4, gt=0, le=HIGHEST_RATE)
    """Peak learning rate."""
    min_learning_rate: float = Field(default=0.0, ge=0)
    """Learning rate at the end of the decay."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear warm-up."""
    schedule: Literal["cosine", "wsd", "linear", "constant"] = "cosine"
    """Decay: cosine, or warm-up-stable-decay (linear over the last `decay_steps`)."""
    decay_steps: PositiveInt | None = None
    """Steps of the final decay of `wsd`."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled weight decay of matrices; norms, biases and attention sinks are not decayed."""
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    adam_beta2: float = Field(default=0.95, ge=0, lt=1)
    adam_epsilon: float = Field(default=1e-8, gt=0)
    clip_grad: float = Field(default=1.0, ge=0)
    """Global gradient norm is clipped to this; 0: not clipped."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """When a loss or gradient norm is infinite or not a number: end the run, or go on without this
    step's update. Both keep a dump that replays the step (`--replay`)."""
    on_spike: Literal["ignore", "stop", "skip"] = "ignore"
    """The same when a loss exceeds `spike_factor` times the median of `spike_window` steps."""
    spike_factor: float = Field(default=2.0, gt=1)
    """Loss over the median loss that counts as a spike."""
    spike_window: PositiveInt = 64
    """Steps that the median is taken of."""
    max_skipped: PositiveInt = 10
    """Most steps in a row that are skipped; the next one ends the run."""
    log_interval: PositiveInt = 1
    """Steps between metric rows."""
    eval_interval: PositiveInt | None = None
    """Steps between evaluations on the held-out split; none: only at the end."""
    eval_sequences: PositiveInt = 64
    """Held-out sequences an evaluation reads (fewer where the split is smaller)."""
    checkpoint_interval: PositiveInt | None = None
    """Steps between checkpoints; none: only at the end or when stopped."""
    on_failed_save: Literal["stop", "wait", "continue"] = "stop"
    """When storage refuses a checkpoint several times in half a minute: end the run; pause until
    it can be written, for up to `parallel.storage_timeout_s`; or train on to the next one."""
    keep_checkpoints: PositiveInt = 2
    """Newest checkpoints that stay."""
    keep_every: PositiveInt | None = None
    """Checkpoints of multiples of so many steps stay too, for good."""

    @property
    def examples(self) -> Literal["text", "conversations", "pairs"]:
        """What the mode learns from."""
        if self.mode == "pretrain":
            return "text"
        return "conversations" if self.mode == "sft" else "pairs"

    @property
    def positions_per_step(self) -> int:
        """Positions that one optimizer step computes, padding among them."""
        return self.global_batch_size * self.seq_len

    @property
    def preference_beta(self) -> float:
        """`dpo_beta`, resolved."""
        return self.dpo_beta or 0.1

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step (the first is 1).

        Linear warm-up to the peak, then cosine (arXiv:1608.03983, eq. 5) or linear decay to
        `min_learning_rate` at the last step, or warm-up-stable-decay (arXiv:2404.06395, section 4)
        with a linear decay over the last `decay_steps`.
        """
        peak, low = self.learning_rate, self.min_learning_rate
        if step <= self.warmup_steps:
            return peak * step / self.warmup_steps
        if self.schedule == "constant":
            return peak
        start = self.warmup_steps
        if self.schedule == "wsd":
            start = self.steps - (self.decay_steps or 0)
        fraction = min(1.0, max(0.0, (step - start) / max(1, self.steps - start)))
        if self.schedule == "cosine":
            fraction = (1 - math.cos(math.pi * fraction)) / 2
        return peak + (low - peak) * fraction

    @model_validator(mode="after")
    def _check_mode(self) -> Self:
        if self.mode != "dpo":
            if self.dpo_beta is not None:
                raise ValueError('dpo_beta belongs to mode = "dpo": remove it or change mode')
            return self
        if self.init is None:
            raise ValueError('mode = "dpo" needs init: the model to tune, which is the reference')
        for key in ("micro_batch_size", "global_batch_size"):
            if getattr(self, key) % 2:
                raise ValueError(
                    f'{key}={getattr(self, key)} is odd: mode = "dpo" reads pairs, two sequences'
                    " each: make it even"
                )
        return self

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.schedule == "wsd" and self.decay_steps is None:
            raise ValueError('schedule = "wsd" needs decay_steps')
        if self.schedule != "wsd" and self.decay_steps is not None:
            raise ValueError(
                'decay_steps belongs to schedule = "wsd": remove it or change schedule'
            )
        if self.warmup_steps + (self.decay_steps or 0) > self.steps:
            raise ValueError(
                f"warmup_steps={self.warmup_steps} + decay_steps={self.decay_steps or 0}"
                f" exceed steps={self.steps}"
            )
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate={self.min_learning_rate} exceeds"
                f" learning_rate={self.learning_rate}"
            )
        return self
