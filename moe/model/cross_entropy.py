"""LM head and cross-entropy in chunks of tokens: the full logits [S, B, V] never exist.

For each chunk the forward pass saves only the logarithm of the softmax's denominator; the backward
pass recomputes the chunk's logits. Where one chunk holds all tokens, the gradient by the logits is
saved instead: it is within the memory bound, and saves a matrix product. The vocabulary may be
sharded over tensor-parallel ranks (arXiv:1909.08053, section 3).

Shapes: T tokens, C tokens of a chunk, H hidden, V vocabulary rows on this rank.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

MAX_LOGITS = 2**25
"""Most logits that exist at once; 128 MiB in FP32."""


def chunked_cross_entropy(
    hidden_th: Tensor,
    weight_vh: Tensor,
    labels_t: Tensor,
    group: dist.ProcessGroup,
    max_logits: int = MAX_LOGITS,
) -> Tensor:
    """Return each token's cross-entropy in nats, FP32 [T].

    Args:
        hidden_th: Final hidden states, the same on every rank of `group`. Their gradient is a
            partial sum: the caller sums it over the group.
        weight_vh: This rank's rows of the LM head.
        labels_t: Indices into the full vocabulary.
        group: Tensor-parallel ranks, each with the same number of rows.
        max_logits: Bound on the logits of a chunk.
    """
    chunk = max(1, max_logits // weight_vh.shape[0])
    losses: Tensor = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden_th, weight_vh, labels_t, group, chunk
    )
    return losses


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, group: Any, chunk: int
    ) -> Tensor:
        local, is_here = _local_labels(labels, weight.shape[0], group)
        maximum, denominator, target = (
            torch.empty(labels.shape, dtype=torch.float32, device=hidden.device) for _ in range(3)
        )
        exponential_cv = None
        for rows in _chunks(labels.numel(), chunk):
            logits_cv = (hidden[rows] @ weight.T).float()
            maximum[rows] = logits_cv.amax(dim=-1)
            target[rows] = logits_cv.gather(1, local[rows, None])[:, 0] * is_here[rows]
            exponential_cv = logits_cv.sub_(maximum[rows, None]).exp_()
            denominator[rows] = exponential_cv.sum(dim=-1)
        local_maximum = maximum
        if group.size() > 1:
            local_maximum = maximum.clone()
            dist.all_reduce(maximum, dist.ReduceOp.MAX, group=group)
            both = torch.stack([denominator * (local_maximum - maximum).exp(), target])
            dist.all_reduce(both, group=group)
            denominator, target = both
        log_denominator = denominator.log() + maximum
        grad_logits_cv = None
        if exponential_cv is not None and labels.numel() <= chunk:
            softmax_cv = exponential_cv.mul_((local_maximum - log_denominator).exp_()[:, None])
            grad_logits_cv = _softmax_minus_one_hot_(softmax_cv, local, is_here)
        ctx.save_for_backward(hidden, weight, local, is_here, log_denominator, grad_logits_cv)
        ctx.chunk = chunk
        return log_denominator - target

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, local, is_here, log_denominator, saved_cv = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        for rows in _chunks(local.numel(), ctx.chunk):
            grad_logits_cv = saved_cv
            if grad_logits_cv is None:
                logits_cv = (hidden[rows] @ weight.T).float()
                softmax_cv = logits_cv.sub_(log_denominator[rows, None]).exp_()
                grad_logits_cv = _softmax_minus_one_hot_(softmax_cv, local[rows], is_here[rows])
            grad_logits_cv, grad_loss_c1 = grad_logits_cv.to(weight.dtype), gradients[0][rows, None]
            # Scale the shorter rows: V is far longer than H.
            grad_hidden[rows] = (grad_logits_cv @ weight) * grad_loss_c1
            grad_weight += grad_logits_cv.T @ (hidden[rows] * grad_loss_c1).to(weight.dtype)
        return grad_hidden, grad_weight.to(weight.dtype), None, None, None


def _softmax_minus_one_hot_(softmax_cv: Tensor, local_c: Tensor, is_here_c: Tensor) -> Tensor:
    """Turn a softmax into the gradient of the cross-entropy by the logits, in place."""
    return softmax_cv.scatter_add_(1, local_c[:, None], -is_here_c[:, None].float())


def _local_labels(labels: Tensor, num_rows: int, group: Any) -> tuple[Tensor, Tensor]:
    """Return labels as rows of this rank (0 where on another), and whether they are on this one."""
    local = labels - group.rank() * num_rows
    is_here = (local >= 0) & (local < num_rows)
    return torch.where(is_here, local, 0), is_here


def _chunks(count: int, size: int) -> Iterator[slice]:
    """Return the slices of at most `size` that cover `count` items."""
    return (slice(first, min(first + size, count)) for first in range(0, count, size))
