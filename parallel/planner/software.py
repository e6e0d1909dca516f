"""What a training program does that its memory depends on, beside layout and precision."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class StateBytes:
    """Bytes per parameter beside the parameter itself. The defaults are those of `moe train`."""

    gradient: int = 4
    """2 where gradients are accumulated and reduced in BF16."""
    master: int = 4
    """FP32 copy of the parameter, only for parameters of lower precision; 2 where only the 16 bits
    are kept that BF16 lacks (`store_param_remainders` of megatron-core's precision-aware
    optimizer)."""
    moments: int = 8
    """Both of Adam's; 4 with BF16 moments (precision-aware optimizer)."""


@dataclass(frozen=True, kw_only=True)
class Software:
    """How losses and weight gradients are computed. The defaults are those of `moe train`."""

    logits: Literal["chunked", "fused", "full"] = "chunked"
    """`chunked`: at most `CHUNK_LOGITS` exist at once (`moe/model/cross_entropy.py`); `fused`:
    logits and their gradient, each in the model's precision (Transformer Engine's fused
    cross-entropy); `full`: an FP32 softmax too (`megatron/core/tensor_parallel/cross_entropy.py`).
    """
    fused_weight_gradients: bool = False
    """Whether matrix products add weight gradients to the gradient buffer themselves
    (`gradient_accumulation_fusion`). Autograd then gets an empty tensor of the weight's shape, one
    kept for each shape (`get_dummy_wgrad` in `transformer_engine/pytorch/module/base.py`, since
    2.8)."""
    fp8_transposes: bool = True
    """Whether FP8 weights are kept transposed too, for their gradients' products
    (`disable_parameter_transpose_cache` of megatron-core drops them)."""


OUR_STATE, OURS = StateBytes(), Software()
"""Those of `moe train`."""
MEGATRON = Software(logits="fused", fused_weight_gradients=True)
"""Megatron-LM and Megatron-Bridge as their published runs configure them."""
CHUNK_LOGITS = 2**25
