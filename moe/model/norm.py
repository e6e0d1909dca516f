"""Kernel set `torch`: RMS norms that support sharding of tokens and heads over ranks.

Shapes: S sequence on this rank, B batch, D head dimension.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Root-mean-square norm (arXiv:1910.07467) that supports sequence parallelism.

    With sequence parallelism a rank has only some of the tokens; the weight's attribute makes
    megatron-core sum its gradient over the tensor-parallel ranks.
    """

    def __init__(
        self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: Any
    ) -> None:
        super().__init__()
        self.eps = eps
        device = torch.cuda.current_device()
        self.weight = nn.Parameter(
            torch.ones(hidden_size, dtype=config.params_dtype, device=device)
        )
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last dimension."""
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class FullQkNorm(nn.Module):
    """RMSNorm over all heads together (OLMoE, arXiv:2409.02060), heads sharded over `tp` ranks.

    Input and output are [S, B, heads on this rank, D]. Every rank holds the full weight and uses
    its slice, so that megatron-core's sum of `q_layernorm` gradients over ranks is right.
    """

    def __init__(
        self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: Any
    ) -> None:
        super().__init__()
        self.eps, self.head_dim = eps, hidden_size
        self.num_heads = self._total_heads(config)
        width = self.num_heads * hidden_size
        device = torch.cuda.current_device()
        self.weight = nn.Parameter(torch.ones(width, dtype=config.params_dtype, device=device))
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]
        groups = ProcessGroupCollection.use_mpu_process_groups(required_pgs=["tp"])
        self.tp_group: dist.ProcessGroup = groups.tp

    @staticmethod
    def _total_heads(config: TransformerConfig) -> int:
        return int(config.num_attention_heads)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize over heads and head dimension together."""
        square_sum = x.float().square().sum(dim=(-2, -1), keepdim=True)
        if self.tp_group.size() > 1:
            square_sum = _SumOverRanks.apply(square_sum, self.tp_group)  # type: ignore[no-untyped-call]
        scale = torch.rsqrt(square_sum / (self.num_heads * self.head_dim) + self.eps)
        heads = x.shape[-2]
        first = self.tp_group.rank() * heads
        weight = self.weight.view(self.num_heads, self.head_dim)[first : first + heads]
        return (x.float() * scale).type_as(x) * weight


class FullKeyNorm(FullQkNorm):
    """`FullQkNorm` for keys, which have fewer heads."""

    @staticmethod
    def _total_heads(config: TransformerConfig) -> int:
        return int(config.num_query_groups)


class _SumOverRanks(torch.autograd.Function):
    """Sum over ranks in both passes: every rank's output depends on every rank's input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        total = x.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None
