"""The learning rate as a pure function of the step."""

import math

from moe.config.train import TrainConfig


def learning_rate(train: TrainConfig, step: int) -> float:
    """Return the learning rate of step `step` (the first is 1).

    Linear warm-up to the peak, then cosine (arXiv:1608.03983, eq. 5) or linear decay to
    `min_learning_rate` at the last step, or warm-up-stable-decay (arXiv:2404.06395, section 4)
    with a linear decay over the last `decay_steps`.
    """
    peak, low = train.learning_rate, train.min_learning_rate
    if step <= train.warmup_steps:
        return peak * step / train.warmup_steps
    if train.schedule == "constant":
        return peak
    start = train.warmup_steps
    if train.schedule == "wsd":
        start = train.steps - (train.decay_steps or 0)
    share = min(1.0, max(0.0, (step - start) / max(1, train.steps - start)))
    if train.schedule == "cosine":
        share = (1 - math.cos(math.pi * share)) / 2
    return peak + (low - peak) * share
