"""Optimizer kernels over lists of tensors, in FP32. `noop_flag` is set where a step is skipped."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Lists = Sequence[Sequence[Tensor]]


def multi_tensor_scale(chunk_size: int, noop_flag: Tensor, lists: Lists, scale: float) -> None:
    """Write each tensor of the first list, scaled, to its place in the second."""
    for source, target in zip(*lists, strict=True):
        scaled = source.float() * scale
        if not scaled.isfinite().all():
            noop_flag.fill_(1)
        target.copy_(scaled)


def multi_tensor_l2norm(
    chunk_size: int, noop_flag: Tensor, lists: Lists, per_tensor: bool | None = None
) -> tuple[Tensor, Tensor]:
    """Return the norm of all tensors together, and with `per_tensor` of each."""
    norms = torch.stack([tensor.float().norm() for tensor in lists[0]])
    return norms.norm()[None], norms if per_tensor else norms[:0]


def multi_tensor_adam(
    chunk_size: int, noop_flag: Tensor, lists: Lists, lr: float, beta1: float, beta2: float,
    epsilon: float, step: int, mode: int, bias_correction: int, weight_decay: float,
) -> None:  # fmt: skip
    """Update gradients' parameters, moments and, where there is a fifth list, FP32 masters."""
    if noop_flag.item():
        return
    corrections = (1 - beta1**step, 1 - beta2**step) if bias_correction else (1.0, 1.0)
    decouples_decay = mode == 1
    for grad_tensor, parameter, first, second, *master in zip(*lists, strict=True):
        source = master[0] if master else parameter
        weight, grad = source.float(), grad_tensor.float()
        if not decouples_decay:
            grad = grad + weight_decay * weight
        mean = beta1 * first.float() + (1 - beta1) * grad
        square = beta2 * second.float() + (1 - beta2) * grad * grad
        deviation = square.sqrt() / math.sqrt(corrections[1]) + epsilon
        update = mean / corrections[0] / deviation
        if decouples_decay:
            update = update + weight_decay * weight
        weight = weight - lr * update
        for target, value in ((first, mean), (second, square), (source, weight)):
            target.copy_(value)
        if master:
            parameter.copy_(weight)
