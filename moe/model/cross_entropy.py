"""LM head and cross-entropy in chunks of tokens: the logits [S, B, V] never exist whole.

For each chunk the forward pass keeps the logarithm of the softmax's denominator alone; the
backward pass computes the chunk's logits again. Where one chunk holds all tokens, the loss's slope
is kept instead: no more memory than the bound allows, and a product less. The vocabulary may be cut
over tensor-parallel ranks (arXiv:1909.08053, section 3).

Shapes: T tokens, C tokens of a chunk, H hidden, V vocabulary rows on this rank.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

LOGITS_AT_ONCE = 2**25
"""Most logits that exist at a time, as FP32 128 MiB."""


def chunked_cross_entropy(
    hidden_th: Tensor,
    weight_vh: Tensor,
    labels_t: Tensor,
    group: dist.ProcessGroup,
    logits_at_once: int = LOGITS_AT_ONCE,
) -> Tensor:
    """Return each token's cross-entropy in nats, FP32 [T].

    Args:
        hidden_th: Final hidden states, the same on every rank of `group`. Their gradient is this
            rank's share: the caller sums it over the group.
        weight_vh: This rank's rows of the LM head.
        labels_t: Indices into the whole vocabulary.
        group: Tensor-parallel ranks, each with equally many rows.
        logits_at_once: Bound on the logits of a chunk.
    """
    chunk = max(1, logits_at_once // weight_vh.shape[0])
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
        largest, denominator, target = (
            torch.empty(labels.shape, dtype=torch.float32, device=hidden.device) for _ in range(3)
        )
        exponential_cv = None
        for part in _chunks(labels.numel(), chunk):
            logits_cv = (hidden[part] @ weight.T).float()
            largest[part] = logits_cv.amax(dim=-1)
            target[part] = logits_cv.gather(1, local[part, None])[:, 0] * is_here[part]
            exponential_cv = logits_cv.sub_(largest[part, None]).exp_()
            denominator[part] = exponential_cv.sum(dim=-1)
        own_largest = largest
        if group.size() > 1:
            own_largest = largest.clone()
            dist.all_reduce(largest, dist.ReduceOp.MAX, group=group)
            both = torch.stack([denominator * (own_largest - largest).exp(), target])
            dist.all_reduce(both, group=group)
            denominator, target = both
        log_denominator = denominator.log() + largest
        slope_cv = None
        if exponential_cv is not None and labels.numel() <= chunk:
            softmax_cv = exponential_cv.mul_((own_largest - log_denominator).exp_()[:, None])
            slope_cv = _less_target(softmax_cv, local, is_here)
        ctx.save_for_backward(hidden, weight, local, is_here, log_denominator, slope_cv)
        ctx.chunk = chunk
        return log_denominator - target

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, local, is_here, log_denominator, kept_cv = ctx.saved_tensors
        by_hidden = torch.empty_like(hidden)
        by_weight = torch.zeros_like(weight, dtype=torch.float32)
        for part in _chunks(local.numel(), ctx.chunk):
            slope_cv = kept_cv
            if slope_cv is None:
                logits_cv = (hidden[part] @ weight.T).float()
                softmax_cv = logits_cv.sub_(log_denominator[part, None]).exp_()
                slope_cv = _less_target(softmax_cv, local[part], is_here[part])
            slope_cv, share_c1 = slope_cv.to(weight.dtype), gradients[0][part, None]
            # Tokens are weighed where they are short: V is far longer than H.
            by_hidden[part] = (slope_cv @ weight) * share_c1
            by_weight += slope_cv.T @ (hidden[part] * share_c1).to(weight.dtype)
        return by_hidden, by_weight.to(weight.dtype), None, None, None


def _less_target(softmax_cv: Tensor, local_c: Tensor, is_here_c: Tensor) -> Tensor:
    """Make a softmax, in place, the slope of the cross-entropy by the logits."""
    return softmax_cv.scatter_add_(1, local_c[:, None], -is_here_c[:, None].float())


def _local_labels(labels: Tensor, rows: int, group: Any) -> tuple[Tensor, Tensor]:
    """Return labels as rows of this rank (0 where another has them), and whether they are here."""
    local = labels - group.rank() * rows
    is_here = (local >= 0) & (local < rows)
    return torch.where(is_here, local, 0), is_here


def _chunks(count: int, size: int) -> Iterator[slice]:
    return (slice(first, min(first + size, count)) for first in range(0, count, size))
