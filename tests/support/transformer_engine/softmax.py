"""Scaled softmaxes of unfused attention in 16 bits. Scores: [batch, heads, queries, keys]."""

import torch
from torch import Tensor

MASKED = -10000.0
"""What the kernels put in place of a masked score."""


def scaled_softmax_forward(inputs: Tensor, scale: float) -> Tensor:
    """Return the softmax of all scores of a row."""
    return _softmax(inputs, scale, None)


def scaled_masked_softmax_forward(inputs: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Return the softmax where `mask` (broadcast) is false; zeros where it is true in a row."""
    return _softmax(inputs, scale, mask.bool())


def scaled_upper_triang_masked_softmax_forward(inputs: Tensor, scale: float) -> Tensor:
    """Return the softmax of [batch * heads, queries, keys] up to the query's own place."""
    return _softmax(inputs, scale, _after(inputs))


def scaled_aligned_causal_masked_softmax_forward(inputs: Tensor, scale: float) -> Tensor:
    """Return the softmax up to the query's own place, the last query seeing the last key."""
    return _softmax(inputs, scale, _after(inputs))


def scaled_softmax_backward(output_grads: Tensor, softmax_results: Tensor, scale: float) -> Tensor:
    """Return the scores' gradient from the softmax's; the same for every mask."""
    y, grad = softmax_results.float(), output_grads.float()
    return (scale * y * (grad - (grad * y).sum(-1, keepdim=True))).to(output_grads.dtype)


scaled_masked_softmax_backward = scaled_softmax_backward
scaled_upper_triang_masked_softmax_backward = scaled_softmax_backward
scaled_aligned_causal_masked_softmax_backward = scaled_softmax_backward


def _softmax(scores: Tensor, scale: float, mask: Tensor | None) -> Tensor:
    x = scores.float() * scale
    if mask is not None:
        x = x.masked_fill(mask, MASKED)
    y = x.softmax(-1)
    if mask is not None:
        y = y.masked_fill(mask.expand(y.shape).all(-1, keepdim=True), 0.0)
    return y.to(scores.dtype)


def _after(scores: Tensor) -> Tensor:
    queries, keys = scores.shape[-2:]
    return torch.ones(queries, keys, dtype=torch.bool).triu(1 + keys - queries)
