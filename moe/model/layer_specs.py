"""Layer specs: which modules megatron-core builds a model's layers from, for both kernel sets."""

from functools import partial
from typing import Any

from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.models.gpt.gpt_layer_specs import (
    get_gpt_decoder_block_spec,
    get_gpt_mtp_block_spec,
    get_gpt_mtp_block_spec_for_backend,
    get_mlp_module_spec_for_backend,
)
from megatron.core.transformer import multi_latent_attention
from megatron.core.transformer.attention import SelfAttention, SelfAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.multi_latent_attention import MLASelfAttentionSubmodules
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import (
    TransformerBlockSubmodules,
    get_num_layers_to_build,
)
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import (
    TransformerLayer,
    TransformerLayerSubmodules,
    get_transformer_layer_offset,
)

from moe.config.model import ModelConfig
from moe.config.tensor_names import norm_names
from moe.model.latent_attention import LatentAttention, NamedLatentAttention
from moe.model.norm import FullKeyNorm, FullQkNorm, RMSNorm
from moe.model.router import Router
from moe.model.torch_kernels import TorchBackend
from parallel.precision.recipes import Precision


def block_specs(
    model: ModelConfig, config: TransformerConfig, precision: Precision, stage: int | None
) -> tuple[TransformerBlockSubmodules, Any]:
    """Return the specs of a chunk's layers, and of its multi-token-prediction layers (or None).

    `stage` is the virtual pipeline stage of the chunk, None without an interleaved pipeline.
    """
    if precision.kernels == "te":
        return _te_block_specs(model, config, stage)
    backend = TorchBackend()
    specs = [_layer_spec(model, config, backend, sparse) for sparse in model.sparse_layers]
    first = get_transformer_layer_offset(config, vp_stage=stage)
    count = get_num_layers_to_build(config, vp_stage=stage)
    block = TransformerBlockSubmodules(layer_specs=specs[first : first + count], layer_norm=RMSNorm)
    if not model.mtp_layers:
        return block, None
    mtp = get_gpt_mtp_block_spec_for_backend(config, specs[-1], backend, vp_stage=stage)
    return block, mtp


def _te_block_specs(
    model: ModelConfig, config: TransformerConfig, stage: int | None
) -> tuple[TransformerBlockSubmodules, Any]:
    block = get_gpt_decoder_block_spec(config, use_transformer_engine=True, vp_stage=stage)
    for layer in block.layer_specs:
        _set_router(layer.submodules.mlp, model)
        if model.mla is not None:
            layer.submodules.self_attention.module = NamedLatentAttention
    if not config.mtp_num_layers:
        return block, None
    mtp = get_gpt_mtp_block_spec(config, block, use_transformer_engine=True, vp_stage=stage)
    return block, mtp


def _layer_spec(
    model: ModelConfig, config: TransformerConfig, backend: TorchBackend, sparse: bool
) -> ModuleSpec:
    mlp = get_mlp_module_spec_for_backend(
        backend=backend,
        num_experts=config.num_moe_experts if sparse else None,
        moe_grouped_gemm=sparse,
    )
    _set_router(mlp, model)
    return ModuleSpec(
        module=TransformerLayer,
        submodules=TransformerLayerSubmodules(
            input_layernorm=RMSNorm,
            self_attention=_attention_spec(model, backend),
            self_attn_bda=get_bias_dropout_add,
            pre_mlp_layernorm=RMSNorm,
            mlp=mlp,
            mlp_bda=get_bias_dropout_add,
            sharded_state_dict_keys_map=norm_names(latent=model.mla is not None, sparse=sparse),
        ),
    )


def _set_router(mlp: Any, model: ModelConfig) -> None:
    """Set our router in the spec (0.16) or builder (later) of a feed-forward network."""
    submodules = mlp.keywords["submodules"] if isinstance(mlp, partial) else mlp.submodules
    if model.moe is not None and hasattr(submodules, "router"):
        submodules.router = partial(Router, model.moe)


def _attention_spec(model: ModelConfig, backend: TorchBackend) -> ModuleSpec:
    column, row = backend.column_parallel_linear(), backend.row_parallel_linear()
    causal = {"attn_mask_type": AttnMaskType.causal}
    if model.mla is not None:
        _define_missing_te_linear()
        submodules: Any = MLASelfAttentionSubmodules(
            linear_q_proj=column,
            linear_q_down_proj=column,
            linear_q_up_proj=column,
            linear_kv_down_proj=column,
            linear_kv_up_proj=column,
            core_attention=backend.core_attention(),
            linear_proj=row,
            q_layernorm=RMSNorm if model.mla.q_lora_rank else IdentityOp,
            kv_layernorm=RMSNorm,
        )
        return ModuleSpec(module=LatentAttention, params=causal, submodules=submodules)
    q_norm, k_norm = {
        "none": (IdentityOp, IdentityOp),
        "head": (RMSNorm, RMSNorm),
        "full": (FullQkNorm, FullKeyNorm),
    }[model.qk_norm]
    submodules = SelfAttentionSubmodules(
        linear_qkv=column,
        core_attention=backend.core_attention(),
        linear_proj=row,
        q_layernorm=q_norm,
        k_layernorm=k_norm,
    )
    return ModuleSpec(module=SelfAttention, params=causal, submodules=submodules)


def _define_missing_te_linear() -> None:
    """Replace the mock that 0.16 leaves without Transformer Engine: `isinstance` needs a class.

    Nothing is an instance of it: the branch it guards is for Transformer Engine's modules.
    """
    if not isinstance(getattr(multi_latent_attention, "TELinear", None), type):
        multi_latent_attention.TELinear = type("AbsentTELinear", (), {})
