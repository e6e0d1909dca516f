"""Building a model on megatron-core: its chunks on this rank, from layer specs.

Two kernel sets stand behind megatron-core's interfaces, `torch` (torch_kernels.py) and `te`.
"""

from functools import partial
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.models.gpt.gpt_layer_specs import (
    get_gpt_decoder_block_spec,
    get_gpt_mtp_block_spec,
    get_gpt_mtp_block_spec_for_backend,
    get_mlp_module_spec_for_backend,
)
from megatron.core.packed_seq_params import PackedSeqParams
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

from moe.config.kernels import kernel_fault
from moe.config.model import ModelConfig
from moe.errors import ConfigError
from moe.model.initialization import SHARDING, initialize_weights
from moe.model.language_model import LanguageModel
from moe.model.mcore_config import transformer_config
from moe.model.rope import set_frequencies
from moe.model.router import Router
from moe.model.torch_kernels import (
    FullKeyNorm,
    FullQkNorm,
    LatentAttention,
    NamedLatentAttention,
    RMSNorm,
    TorchBackend,
)
from parallel.layout.layout import Layout
from parallel.precision.recipes import Precision

__all__ = ["SHARDING", "build_model", "document_inputs", "transformer_config"]


def build_model(
    model: ModelConfig, layout: Layout, precision: Precision, *, seed: int | None
) -> list[LanguageModel]:
    """Build this rank's part of a model: one chunk, or `vpp` chunks of an interleaved pipeline.

    Initial weights depend on the seed and on each weight's place in the whole model, not on the
    layout; without a seed they are left unset. The engine must have been started.

    Raises:
        ConfigError: The engine or the kernel set cannot do what the model asks for.
    """
    if fault := kernel_fault(model, layout, precision):
        raise ConfigError(fault)
    config = transformer_config(model, layout, precision)
    stages = range(layout.vpp) if layout.vpp > 1 else [None]
    chunks = [_build_chunk(model, config, precision, stage) for stage in stages]
    if seed is not None:
        for chunk in chunks:
            initialize_weights(chunk, model, seed)
    return chunks


def _build_chunk(
    model: ModelConfig, config: TransformerConfig, precision: Precision, stage: int | None
) -> LanguageModel:
    vp = {"ignore_virtual": False, "vp_stage": stage}
    block, mtp = _block_specs(model, config, precision, stage)
    chunk = LanguageModel(
        config=config,
        transformer_layer_spec=block,
        mtp_block_spec=mtp,
        vocab_size=model.vocab_size,
        max_sequence_length=model.max_seq_len,
        pre_process=parallel_state.is_pipeline_first_stage(**vp),
        post_process=parallel_state.is_pipeline_last_stage(**vp),
        share_embeddings_and_output_weights=model.tie_embeddings,
        position_embedding_type="rope",
        rotary_percent=model.rope.fraction,
        vp_stage=stage,
    )
    set_frequencies(chunk, model)
    chunk.to(torch.cuda.current_device())
    return chunk


def document_inputs(borders: torch.Tensor | None, precision: Precision) -> dict[str, Any]:
    """Return what a model is called with so that documents see only themselves.

    Args:
        borders: Documents' borders in the B * S tokens laid end to end, int32 [documents + 1]
            on the CPU; None: attention is causal over each row. Rotary embeddings see only
            differences of positions, so these need not restart; Transformer Engine's do.
        precision: Names the kernel set.
    """
    if borders is None:
        return {"attention_mask": None}
    if precision.kernels == "torch":
        return {"attention_mask": borders}
    device_borders = borders.to(torch.cuda.current_device(), torch.int32)
    longest = int(torch.diff(borders).max())
    packed = PackedSeqParams(
        qkv_format="thd",
        cu_seqlens_q=device_borders,
        cu_seqlens_kv=device_borders,
        max_seqlen_q=longest,
        max_seqlen_kv=longest,
    )
    return {"attention_mask": None, "packed_seq_params": packed}


def _block_specs(
    model: ModelConfig, config: TransformerConfig, precision: Precision, stage: int | None
) -> tuple[TransformerBlockSubmodules, Any]:
    """Return the specs of this chunk's layers and of its multi-token-prediction layers."""
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
        ),
    )


def _set_router(mlp: Any, model: ModelConfig) -> None:
    """Name our router in the spec (0.16) or builder (later) of a feed-forward network."""
    submodules = mlp.keywords["submodules"] if isinstance(mlp, partial) else mlp.submodules
    if model.moe is not None and hasattr(submodules, "router"):
        submodules.router = partial(Router, model.moe)


def _attention_spec(model: ModelConfig, backend: TorchBackend) -> ModuleSpec:
    column, row = backend.column_parallel_linear(), backend.row_parallel_linear()
    causal = {"attn_mask_type": AttnMaskType.causal}
    if model.mla is not None:
        _name_missing_linear()
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


def _name_missing_linear() -> None:
    """Put a class where 0.16, without Transformer Engine, leaves a mock that `isinstance` refuses.

    Nothing is an instance of it: the branch it guards is for Transformer Engine's modules.
    """
    if not isinstance(getattr(multi_latent_attention, "TELinear", None), type):
        multi_latent_attention.TELinear = type("AbsentTELinear", (), {})
