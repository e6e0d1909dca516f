"""Attention written out slowly in plain torch: positions, what is visible, weights over keys.

Shapes: B sequences, S tokens each, D head dimension.
"""

import math

import torch
from torch import Tensor

from moe.config.model import RopeConfig


def attend(  # noqa: PLR0913, PLR0917
    query: Tensor, key: Tensor, value: Tensor, visible: Tensor, scale: float, sinks: Tensor | None
) -> Tensor:
    """Return what queries [B, S, heads, D] see of keys and values, heads side by side."""
    scores = torch.einsum("bsnd,btnd->bnst", query, key) * scale
    scores = scores.masked_fill(~visible[:, None], float("-inf"))
    if sinks is not None:
        column = sinks[None, :, None, None].expand(*scores.shape[:3], 1)
        scores = torch.cat([scores, column], dim=-1)
    weights = scores.softmax(-1)[..., : key.shape[1]]
    return torch.einsum("bnst,btnd->bsnd", weights, value).flatten(2)


def turn(x: Tensor, rope: RopeConfig) -> Tensor:
    """Rotate [B, S, heads, D]: dimension i with i + D/2, by its position's angle."""
    half = x.shape[-1] // 2
    rates = torch.tensor([_rate(rope, i, half) for i in range(half)])
    angles = torch.arange(x.shape[1])[:, None] * rates
    concentration = 1.0
    if rope.scaling == "yarn":
        concentration = yarn_mscale(rope.factor, rope.mscale)
        concentration /= yarn_mscale(rope.factor, rope.mscale_all_dim)
    cos, sin = (f(angles)[None, :, None] * concentration for f in (torch.cos, torch.sin))
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _rate(rope: RopeConfig, pair: int, pairs: int) -> float:
    """Return the radians a position of one pair of dimensions."""
    rate = rope.theta ** (-pair / pairs)
    turns = rope.original_max_seq_len * rate / (2 * math.pi)
    if rope.scaling == "llama3":
        if turns < rope.low_frequency_factor:
            return rate / rope.factor
        if turns > rope.high_frequency_factor:
            return rate
        kept = turns - rope.low_frequency_factor
        kept /= rope.high_frequency_factor - rope.low_frequency_factor
        return (1 - kept) * rate / rope.factor + kept * rate
    if rope.scaling == "yarn":
        low, high = (
            pairs
            * math.log(rope.original_max_seq_len / (2 * math.pi * beta))
            / math.log(rope.theta)
            for beta in (rope.beta_fast, rope.beta_slow)
        )
        if rope.round_correction_range:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, 2 * pairs - 1)
        interpolated = min(max((pair - low) / max(high - low, 0.001), 0.0), 1.0)
        return interpolated * rate / rope.factor + (1 - interpolated) * rate
    return rate


def yarn_mscale(factor: float, mscale: float) -> float:
    """Return YaRN's factor of attention (arXiv:2309.00071, section 3.4)."""
    return 0.1 * mscale * math.log(factor) + 1 if factor > 1 else 1.0


def halves(x: Tensor) -> Tensor:
    """Put pairs (2i, 2i+1) where `turn` wants them."""
    return torch.cat([x[..., 0::2], x[..., 1::2]], dim=-1)


def visible_keys(tokens: Tensor, cu_seqlens: Tensor | None) -> Tensor:
    """Return which tokens [B, S queries, S keys] are before and in the same document."""
    rows, length = tokens.shape
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    if cu_seqlens is None:
        return causal.expand(rows, -1, -1)
    ends = cu_seqlens[1:].tolist()
    number = torch.tensor([sum(end <= i for end in ends) for i in range(rows * length)])
    number = number.view(rows, length)
    return causal & (number[:, :, None] == number[:, None, :])


def window_keys(length: int, window: int | None) -> Tensor:
    """Return which keys [S queries, S keys] a sliding window leaves."""
    place = torch.arange(length)
    return place[:, None] - place[None, :] < (window or length)
