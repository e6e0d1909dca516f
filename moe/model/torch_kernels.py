"""Kernel set `torch`: our modules behind megatron-core's interfaces, for CPU and GPU."""

from typing import Any

import torch
from megatron.core.models.backends import LocalSpecProvider
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_tensor_model_parallel_region,
    scatter_to_sequence_parallel_region,
)
from megatron.core.transformer.multi_latent_attention import MLASelfAttention
from torch import Tensor

from moe.model.attention import Attention, sequence_positions
from moe.model.experts import GroupedExperts, contiguous_gradient
from moe.model.norm import FullKeyNorm, FullQkNorm, RMSNorm
from parallel.engine.megatron_version import SPECS_TAKE_SUBMODULES

__all__ = [
    "Attention",
    "FullKeyNorm",
    "FullQkNorm",
    "GroupedExperts",
    "LatentAttention",
    "NamedLatentAttention",
    "RMSNorm",
    "TorchBackend",
    "sequence_positions",
]


class NamedLatentAttention(MLASelfAttention):  # type: ignore[misc]
    """Multi-head latent attention with the norms and projections that its spec names.

    Where queries are not compressed, 0.19 would put a norm of its own before their projection,
    fused by Transformer Engine; DeepSeek-V2-Lite has none there (arXiv:2405.04434, appendix B).
    """

    def _resolve_qk_norm_config(self, submodules: Any) -> dict[str, Any]:
        names = ("linear_q_proj", "linear_q_up_proj", "linear_kv_up_proj")
        norms = ("q_layernorm", "kv_layernorm")
        return {name: getattr(submodules, name) for name in (*names, *norms)}


class LatentAttention(NamedLatentAttention):
    """That of this kernel set, whose down-projections are cut over tensor-parallel ranks.

    The rotated key is one for all heads: its gradient is the sum over the tensor-parallel ranks
    that hold them. Both versions of the engine leave that sum out where the down-projection is cut.
    """

    def __init__(self, config: Any, *args: Any, **values: Any) -> None:
        super().__init__(config, *args, **values)
        if config.tensor_model_parallel_size > 1:
            self.linear_kv_down_proj.register_forward_hook(self._gathered_latent)

    def _gathered_latent(
        self, _module: Any, _inputs: Any, output: tuple[Tensor, Any]
    ) -> tuple[Tensor, Any]:
        """Return the latent and the rotated key whole, [S / tp, B, both] under `sp`.

        The engine takes them as from a projection that is not cut, and sums the key's gradient
        where it gathers the key along the sequence. Without `sp` it is summed here.
        """
        config = self.config
        whole = gather_from_tensor_model_parallel_region(output[0])
        if config.sequence_parallel:
            return scatter_to_sequence_parallel_region(whole), output[1]
        sizes = [config.kv_lora_rank, config.qk_pos_emb_head_dim]
        latent, key = whole.split(sizes, dim=-1)
        # The engine's sum returns a gradient that is not contiguous as it came.
        key = contiguous_gradient(copy_to_tensor_model_parallel_region(key))
        return torch.cat([latent, key], dim=-1), output[1]


class TorchBackend(LocalSpecProvider):  # type: ignore[misc]
    """The modules of this kernel set; linear layers are megatron-core's own."""

    def layer_norm(self, *_: Any, **__: Any) -> type[RMSNorm]:
        """RMSNorm everywhere."""
        return RMSNorm

    def core_attention(self) -> type[Attention]:
        """Attention on torch's fused kernel."""
        return Attention

    def grouped_mlp_modules(self, *_: Any, **__: Any) -> Any:
        """Grouped experts; 0.16 expects a pair of class and submodules."""
        return (GroupedExperts, None) if SPECS_TAKE_SUBMODULES else GroupedExperts
