"""Kernel set `torch`: all experts of a rank as grouped matmuls.

Shapes: T routed tokens, E experts on this rank, F an expert's inner size on this rank, H hidden.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.dist_checkpointing.mapping import (
    ShardedStateDict,
    ShardedTensor,
    ShardedTensorFactory,
)
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.tensor_parallel.layers import set_tensor_model_parallel_attributes
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn

from moe.config.kernels import GROUPED_ROW_BYTES
from moe.config.tensor_names import EXPERT_WEIGHTS

SHARDED_DIM = {"gate_up": 2, "gate_up_bias": 2, "down": 2, "down_bias": 1}
"""The dimension of each weight that is sharded over expert-tensor-parallel ranks."""

GroupedMatmul = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Multiplies tokens [T, K], sorted by expert, by weights [E, N, K]; given the end of each expert's
tokens, int32 [E]. Returns [T, N]."""


class GroupedExperts(nn.Module):
    """Gated networks (arXiv:2002.05202) of all experts on this rank.

    `gate_up` is [E, 2, F, H] and `down` is [E, H, F], with `linear_bias` also `gate_up_bias`
    [E, 2, F] and `down_bias` [E, H / etp]. They are sharded over expert-parallel ranks along E and
    over expert-tensor-parallel ranks along F (`down_bias` along H: each rank adds its columns).
    megatron-core's dispatcher sums the partial products over the latter.
    """

    gate_up: nn.Parameter
    down: nn.Parameter
    gate_up_bias: nn.Parameter | None
    down_bias: nn.Parameter | None

    def __init__(
        self,
        num_local_experts: int,
        config: TransformerConfig,
        pg_collection: ProcessGroupCollection | None = None,
        **_: Any,
    ) -> None:
        super().__init__()
        assert pg_collection is not None
        self.groups = pg_collection
        self.matmuls: dict[str, GroupedMatmul] = {"gate_up": _grouped_mm, "down": _grouped_mm}
        """Emulated FP8 replaces these."""
        self.clamp: float | None = config.activation_func_clamp_value
        shards = pg_collection.expt_tp.size()
        experts, width = num_local_experts, config.hidden_size
        inner = config.moe_ffn_hidden_size // shards
        shapes: dict[str, tuple[int, ...] | None] = {
            "gate_up": (experts, 2, inner, width),
            "down": (experts, width, inner),
            "gate_up_bias": (experts, 2, inner) if config.add_bias_linear else None,
            "down_bias": (experts, width // shards) if config.add_bias_linear else None,
        }
        for name, shape in shapes.items():
            self.register_parameter(name, _weight(name, shape, config.params_dtype))

    def forward(
        self, tokens_th: Tensor, tokens_per_expert: Tensor, probs_t: Tensor, **_: Any
    ) -> tuple[Tensor, None]:
        """Run tokens [T, H], sorted by expert, each scaled by its routing weight [T]."""
        if tokens_th.shape[0] == 0:
            # No tokens: nothing to compute, but all weights still need (zero) gradients.
            zero = sum((weight.sum() for weight in self.parameters()), probs_t.sum()) * 0.0
            return tokens_th + zero, None
        counts = tokens_per_expert.to(tokens_th.device)
        ends = counts.cumsum(0).to(torch.int32)
        inner = self.matmuls["gate_up"](tokens_th, self.gate_up.flatten(1, 2), ends)
        if self.gate_up_bias is not None:
            inner = inner + self.gate_up_bias.flatten(1).repeat_interleave(counts, dim=0)
        gate, up = inner.chunk(2, dim=-1)
        activated = (self._activate(gate, up) * probs_t.unsqueeze(-1)).to(tokens_th.dtype)
        output = self.matmuls["down"](activated, self.down, ends)
        if self.down_bias is not None:
            bias_th = self._full_down_bias().repeat_interleave(counts, dim=0)
            output = output + (bias_th * probs_t.unsqueeze(-1)).to(output.dtype)
        return output, None

    def _activate(self, gate: Tensor, up: Tensor) -> Tensor:
        """SwiGLU, or GPT-OSS's clamped form of it (see `ModelConfig.activation`)."""
        if self.clamp is None:
            return F.silu(gate) * up
        gate, up = gate.clamp(max=self.clamp), up.clamp(-self.clamp, self.clamp)
        return gate * torch.sigmoid(1.702 * gate) * (up + 1)

    def _full_down_bias(self) -> Tensor:
        """Return this rank's columns of the bias, zero elsewhere, [E, H]."""
        assert self.down_bias is not None
        group = self.groups.expt_tp
        width = self.down_bias.shape[1]
        before = group.rank() * width
        return F.pad(self.down_bias, (before, (group.size() - 1) * width - before))

    def backward_dw(self) -> None:
        """Do nothing: this kernel set does not delay weight gradients."""

    def sharded_state_dict(
        self,
        prefix: str = "",
        sharded_offsets: tuple[tuple[int, int, int], ...] = (),
        metadata: dict[str, Any] | None = None,
    ) -> ShardedStateDict:
        """Describe each weight as a shard of the full tensor, for checkpoints of any layout."""
        axis, groups = len(sharded_offsets), self.groups
        of_experts = (*sharded_offsets, (axis, groups.ep.rank(), groups.ep.size()))
        place = _Place(of_experts, axis, groups.expt_tp.rank(), groups.expt_tp.size())
        replica = (0, 0, groups.expt_dp.rank())
        state: ShardedStateDict = {}
        for name, weight in self.named_parameters():
            key = f"{prefix}{EXPERT_WEIGHTS[name]}"
            if name.startswith("gate_up"):
                shard = ShardedTensorFactory(key, weight, place.halves, _join_halves, replica)
            else:
                shard = place.shard(key, weight, replica, SHARDED_DIM[name])
            state[f"{prefix}{name}"] = shard
        return state


@dataclass(frozen=True)
class _Place:
    """Where this rank's weights lie in those of all experts, in megatron-core's terms."""

    offsets: tuple[tuple[int, int, int], ...]
    """Of leading axes, and of its experts."""
    axis: int
    """Of the experts, behind leading axes."""
    rank: int
    size: int
    """Of the expert-tensor-parallel group."""

    def shard(self, key: str, weight: Tensor, replica: Any, dim: int) -> ShardedTensor:
        """Describe a weight that is sharded along `dim`."""
        return self._shard(key, weight, replica, (self.axis + dim, self.rank, self.size))

    def halves(self, key: str, weight: Tensor, replica: Any, *_: Any) -> list[ShardedTensor]:
        """Describe gate and up [E, 2, F, ..] as shards of the full [E, 2 F, ..], gate first."""
        return [
            self._shard(
                key,
                weight[:, half],
                replica,
                (self.axis + 1, half * self.size + self.rank, 2 * self.size),
            )
            for half in range(2)
        ]

    def _shard(
        self, key: str, data: Tensor, replica: Any, offset: tuple[int, int, int]
    ) -> ShardedTensor:
        return ShardedTensor.from_rank_offsets(
            key, data, *self.offsets, offset, replica_id=replica, prepend_axis_num=self.axis
        )


def _join_halves(halves: list[Tensor]) -> Tensor:
    """Return gate and up as one weight again."""
    return torch.stack(halves, dim=1)


def _weight(name: str, shape: tuple[int, ...] | None, dtype: torch.dtype) -> nn.Parameter | None:
    if shape is None:
        return None
    weight = nn.Parameter(torch.empty(shape, dtype=dtype, device=torch.cuda.current_device()))
    # Weight decay is for matrices, and a bias of several experts has more than one dimension.
    weight.is_bias = name.endswith("bias")  # type: ignore[attr-defined]
    # Each tensor-parallel rank's shard counts in the gradient norm.
    set_tensor_model_parallel_attributes(weight, is_parallel=True, dim=SHARDED_DIM[name], stride=1)
    return weight


def _grouped_mm(tokens_tk: Tensor, weights_enk: Tensor, ends_e: Tensor) -> Tensor:
    # Experiments are refused where rows are no multiple; a converted model has the sizes it has.
    outputs, inputs = weights_enk.shape[1:]
    multiple = GROUPED_ROW_BYTES // weights_enk.element_size()
    if more_inputs := -inputs % multiple:
        tokens_tk = F.pad(tokens_tk, (0, more_inputs))
    if more_inputs or outputs % multiple:
        weights_enk = F.pad(weights_enk, (0, more_inputs, 0, -outputs % multiple))
    product = F.grouped_mm(tokens_tk, weights_enk.transpose(-2, -1), offs=ends_e)
    # Its backward pass on a CPU needs contiguous gradients.
    product = contiguous_gradient(product)
    return product[:, :outputs] if product.shape[1] > outputs else product


def contiguous_gradient(x: Tensor) -> Tensor:
    """Return `x`; the backward pass makes its gradient contiguous."""
    output: Tensor = _ContiguousGradient.apply(x)  # type: ignore[no-untyped-call]
    return output


class _ContiguousGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].contiguous()
