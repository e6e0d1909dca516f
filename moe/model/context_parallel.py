"""Context parallelism: which positions of a sequence each rank holds, and how ranks share them.

Rank r holds chunks r and 2cp-1-r of 2cp chunks of the sequence: megatron-core's balanced order, in
which every rank has an early and a late chunk of the causal mask.

Shapes: S sequence on this rank.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def sequence_positions(cp: int, length: int, device: torch.device | None = None) -> Tensor:
    """Return the sequence positions that each of `cp` ranks holds, int64 [cp, S].

    Args:
        cp: Context-parallel ranks.
        length: S, the positions of one rank; even.
        device: Where the result is.
    """
    chunks = torch.arange(cp * length, device=device).view(2 * cp, length // 2)
    ranks = torch.arange(cp, device=device)
    return torch.cat([chunks[ranks], chunks[2 * cp - 1 - ranks]], dim=1)


def gather_sequence(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Return [cp * S, ...] of all ranks in sequence order, given [S, ...] of each; differentiable.

    The backward pass sums gradients over ranks.
    """
    gathered: Tensor = _GatherSequence.apply(x, group)  # type: ignore[no-untyped-call]
    return gathered


class _GatherSequence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        shards = [torch.empty_like(x) for _ in range(group.size())]
        dist.all_gather(shards, x.contiguous(), group=group)
        order = sequence_positions(group.size(), x.shape[0], x.device).flatten()
        gathered = torch.empty(order.numel(), *x.shape[1:], dtype=x.dtype, device=x.device)
        gathered[order] = torch.cat(shards)
        return gathered

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        length = total.shape[0] // ctx.group.size()
        positions = sequence_positions(ctx.group.size(), length, total.device)
        return total[positions[ctx.group.rank()]], None
