"""Rotary frequencies of a model, the same on every version of megatron-core.

megatron-core supports Llama 3.1's scaling with fixed parameters only, and YaRN only for heads that
are rotated completely. These frequencies replace those of its rotary modules.
"""

import math
from typing import Any

import torch
from torch import Tensor

from moe.config.model import ModelConfig, RopeConfig


def rotary_frequencies(rope: RopeConfig, dim: int) -> Tensor:
    """Return radians per position for each pair of `dim` rotated dimensions, FP32 [dim / 2]."""
    base = 1.0 / rope.theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    if rope.scaling == "llama3":
        return _llama3(rope, base)
    if rope.scaling == "yarn":
        return _yarn(rope, base, dim)
    return base


def _llama3(rope: RopeConfig, base: Tensor) -> Tensor:
    """Llama 3.1: divide low frequencies by `factor`, keep high ones, interpolate between.

    meta-llama/llama-models, models/llama3/reference_impl/model.py, `apply_scaling`.
    """
    turns = rope.original_max_seq_len * base / (2 * math.pi)
    low, high = rope.low_frequency_factor, rope.high_frequency_factor
    unscaled = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - unscaled) * base / rope.factor + unscaled * base


def _yarn(rope: RopeConfig, base: Tensor, dim: int) -> Tensor:
    """YaRN (arXiv:2309.00071, section 3.2), with its ramp over dimensions."""

    def dimension(turns: float) -> float:
        length = rope.original_max_seq_len / (turns * 2 * math.pi)
        return dim * math.log(length) / (2 * math.log(rope.theta))

    low, high = dimension(rope.beta_fast), dimension(rope.beta_slow)
    if rope.round_correction_range:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    pairs = torch.arange(dim // 2, dtype=torch.float32)
    interpolated = ((pairs - low) / ((high - low) or 0.001)).clamp(0, 1)
    return interpolated * base / rope.factor + (1 - interpolated) * base


def set_frequencies(chunk: Any, model: ModelConfig) -> None:
    """Set the model's frequencies in every rotary module of a built chunk."""
    modules = {m.rotary_pos_emb for m in chunk.modules() if hasattr(m, "rotary_pos_emb")} - {None}
    for module in modules:
        if hasattr(module, "correction_range_round_to_int"):
            # YaRN of latent attention reads everything but this from the configuration.
            module.correction_range_round_to_int = model.rope.round_correction_range
            continue
        dim = 2 * module.inv_freq.numel()
        module.inv_freq = rotary_frequencies(model.rope, dim).to(module.inv_freq.device)
