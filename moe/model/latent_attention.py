"""Multi-head latent attention, corrected where megatron-core's differs from the published models.

Shapes: S sequence, B batch.
"""

from typing import Any

import torch
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_tensor_model_parallel_region,
    scatter_to_sequence_parallel_region,
)
from megatron.core.transformer.multi_latent_attention import MLASelfAttention
from torch import Tensor

from moe.model.experts import contiguous_gradient


class NamedLatentAttention(MLASelfAttention):  # type: ignore[misc]
    """Multi-head latent attention with exactly the norms and projections that its spec names.

    Where queries are not compressed, 0.19 would put a norm of its own before their projection,
    fused by Transformer Engine; DeepSeek-V2-Lite has none there (arXiv:2405.04434, appendix B).
    """

    def __init__(self, config: Any, *args: Any, **values: Any) -> None:
        super().__init__(config, *args, **values)
        # megatron-core gives these norms the epsilon of all others. Transformer Engine's are fused
        # into the projection behind them.
        for name in ("q_layernorm", "kv_layernorm", "linear_q_up_proj", "linear_kv_up_proj"):
            norm: Any = getattr(self, name, None)
            if hasattr(norm, "eps"):
                norm.eps = config.latent_norm_epsilon

    def _resolve_qk_norm_config(self, submodules: Any) -> dict[str, Any]:
        names = ("linear_q_proj", "linear_q_up_proj", "linear_kv_up_proj")
        norms = ("q_layernorm", "kv_layernorm")
        return {name: getattr(submodules, name) for name in (*names, *norms)}


class LatentAttention(NamedLatentAttention):
    """Latent attention of kernel set `torch`: down-projections sharded over tensor parallelism.

    All heads share one rotary key, so its gradient is the sum over the tensor-parallel ranks that
    hold them. megatron-core (0.16 to 0.19) omits that sum where the down-projection is sharded.
    """

    def __init__(self, config: Any, *args: Any, **values: Any) -> None:
        super().__init__(config, *args, **values)
        if config.tensor_model_parallel_size > 1:
            self.linear_kv_down_proj.register_forward_hook(self._gather_latent)

    def _gather_latent(
        self, _module: Any, _inputs: Any, output: tuple[Tensor, Any]
    ) -> tuple[Tensor, Any]:
        """Return the complete latent and rotary key, [S, B, both]; under `sp` [S / tp, B, both].

        megatron-core then treats them as the output of a replicated projection. Under `sp` it sums
        the key's gradient where it gathers the key along the sequence; otherwise we do it here.
        """
        config = self.config
        gathered = gather_from_tensor_model_parallel_region(output[0])
        if config.sequence_parallel:
            return scatter_to_sequence_parallel_region(gathered), output[1]
        sizes = [config.kv_lora_rank, config.qk_pos_emb_head_dim]
        latent, key = gathered.split(sizes, dim=-1)
        # That sum passes a non-contiguous gradient on as it came.
        key = contiguous_gradient(copy_to_tensor_model_parallel_region(key))
        return torch.cat([latent, key], dim=-1), output[1]
