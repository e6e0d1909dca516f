"""Kernel set `torch`: our modules behind megatron-core's interfaces, for CPU and GPU."""

from typing import Any

from megatron.core.models.backends import LocalSpecProvider
from megatron.core.transformer.multi_latent_attention import MLASelfAttention

from moe.model_attention import Attention, sequence_positions
from moe.model_experts import GroupedExperts
from moe.model_norm import FullKeyNorm, FullQkNorm, RMSNorm
from parallel.engine import BEFORE_BUILDERS

__all__ = [
    "Attention",
    "FullKeyNorm",
    "FullQkNorm",
    "GroupedExperts",
    "LatentAttention",
    "RMSNorm",
    "TorchBackend",
    "sequence_positions",
]


class LatentAttention(MLASelfAttention):  # type: ignore[misc]
    """Multi-head latent attention with the norms and projections that its spec names.

    Where queries are not compressed, 0.19 would put a norm of its own before their projection,
    fused by Transformer Engine; DeepSeek-V2-Lite has none there (arXiv:2405.04434, appendix B).
    """

    def _resolve_qk_norm_config(self, submodules: Any) -> dict[str, Any]:
        names = ("linear_q_proj", "linear_q_up_proj", "linear_kv_up_proj")
        norms = ("q_layernorm", "kv_layernorm")
        return {name: getattr(submodules, name) for name in (*names, *norms)}


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
        return (GroupedExperts, None) if BEFORE_BUILDERS else GroupedExperts
