"""FP8 parameters rounded from this rank's fragments of their FP32 masters.

A fragment is some of a matrix [h, w] laid flat, from `start_offset` on.
"""

from typing import Any

import torch
from torch import Tensor

from tests.support.transformer_engine.multi_tensor import Lists
from tests.support.transformer_engine.operands import BLOCK
from tests.support.transformer_engine.quantization import block_amax, round_to, scale_of


def compute_amax(input: Tensor, amax: Tensor) -> None:
    """Write the largest magnitude."""
    amax.copy_(input.detach().abs().max())


def multi_tensor_compute_scale_and_scale_inv(
    chunk_size: int, noop_flag: Tensor, lists: Lists, max_fp8: float, force_pow_2_scales: bool,
    epsilon: float,
) -> None:  # fmt: skip
    """Write the scales that follow from amaxes, and their inverses."""
    for amax, scale, inverse in zip(*lists, strict=True):
        scale.copy_(scale_of(amax, max_fp8, epsilon, force_pow_2_scales))
        inverse.copy_(1.0 / scale)


def fp8_block_scaling_compute_partial_amax(
    tensor: Tensor, amax: Tensor, h: int, w: int, start_offset: int, block_len: int
) -> None:
    """Write the largest magnitude of each square block, zero where the fragment has none of it."""
    assert block_len == BLOCK
    whole = torch.zeros(h * w)
    whole[start_offset : start_offset + tensor.numel()] = tensor.detach().float().abs()
    blocks = block_amax(whole.view(h, w), BLOCK, BLOCK)
    amax[: blocks.shape[0], : blocks.shape[1]] = blocks


def fp8_block_scaling_partial_cast(
    inp: Tensor, out: Tensor, scale: Tensor, h: int, w: int, start_offset: int, block_len: int,
    out_dtype: Any,
) -> None:  # fmt: skip
    """Round a fragment by the scales of its square blocks."""
    assert block_len == BLOCK
    scales = scale.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)[:h, :w].flatten()
    scaled = inp.detach().float() * scales[start_offset : start_offset + inp.numel()]
    out.copy_(round_to(scaled, out_dtype))
