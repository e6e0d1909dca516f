"""Translate a model, layout and precision to megatron-core's configuration; the only place."""

from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.fusions.fused_bias_geglu import quick_gelu
from megatron.core.transformer.transformer_config import MLATransformerConfig, TransformerConfig

from moe.config.model import ModelConfig
from moe.errors import ConfigError
from parallel.layout.layout import Layout
from parallel.precision.recipes import Precision


def transformer_config(
    model: ModelConfig, layout: Layout, precision: Precision
) -> TransformerConfig:
    """Return megatron-core's configuration of a model in a layout and precision.

    Raises:
        ConfigError: megatron-core refuses the combination.
    """
    dtype = torch.bfloat16 if precision.dtype == "bf16" else torch.float32
    values: dict[str, Any] = {
        "num_layers": model.num_layers,
        "hidden_size": model.hidden_size,
        "num_attention_heads": model.num_heads,
        "num_query_groups": model.kv_heads,
        "kv_channels": model.query_head_dim,
        "ffn_hidden_size": model.ffn_hidden_size or model.hidden_size,
        "normalization": "RMSNorm",
        "layernorm_epsilon": model.norm_epsilon,
        "qk_layernorm": model.qk_norm != "none" or model.mla is not None,
        "add_bias_linear": model.linear_bias,
        "add_qkv_bias": model.qkv_bias,
        "gated_linear_unit": True,
        "activation_func": F.silu,
        "softmax_type": "learnable" if model.attention_sinks else "vanilla",
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "attention_softmax_in_fp32": True,
        "bias_activation_fusion": False,
        "masked_softmax_fusion": False,
        "gradient_accumulation_fusion": False,
        # Weights are initialized later, the same under every layout (initialization.py);
        # megatron-core's own pass only marks which are tensor-parallel.
        "init_method": _unchanged,
        "output_layer_init_method": _unchanged,
        "embedding_init_method": _unchanged,
        "params_dtype": dtype,
        "pipeline_dtype": dtype,
        "bf16": precision.dtype == "bf16",
        "calculate_per_token_loss": True,
        "mtp_num_layers": model.mtp_layers or None,
        "mtp_loss_scaling_factor": model.mtp_loss_coefficient,
        "tensor_model_parallel_size": layout.tp,
        "sequence_parallel": bool(layout.sp),
        "pipeline_model_parallel_size": layout.pp,
        "virtual_pipeline_model_parallel_size": layout.vpp if layout.vpp > 1 else None,
        # With an interleaved pipeline of two stages, batched messages mix up activations and
        # gradients, since each stage is the other's next and previous; sent singly they do not.
        "batch_p2p_comm": layout.vpp == 1,
        "overlap_p2p_comm": layout.vpp > 1,
        "account_for_embedding_in_pipeline_split": layout.ends_count_as_layers,
        "account_for_loss_in_pipeline_split": layout.ends_count_as_layers,
        "context_parallel_size": layout.cp,
        "cp_comm_type": layout.context_exchange if precision.kernels == "te" else None,
        "expert_model_parallel_size": layout.ep,
        "expert_tensor_parallel_size": layout.etp,
        "transformer_impl": "transformer_engine" if precision.kernels == "te" else "local",
    }
    values |= (
        _activation_values(model, precision) | _window_values(model) | _moe_values(model, layout)
    )
    values |= _stage_values(model, layout) | _recompute_values(layout) | _fp8_values(precision)
    # megatron-core refuses this in FP32, in which its schedule computes the same (tested).
    values["overlap_moe_expert_parallel_comm"] = layout.overlap_experts and dtype != torch.float32
    try:
        if model.mla is not None:
            config = MLATransformerConfig(**values, **_mla_values(model))
            config.latent_norm_epsilon = model.latent_norm_epsilon
        else:
            config = TransformerConfig(**values)
    except (ValueError, AssertionError) as error:
        raise ConfigError(f"megatron-core refuses this model in this layout: {error}") from None
    config.overlap_moe_expert_parallel_comm = layout.overlap_experts
    if model.mla is None and model.rope.scaling == "yarn":
        _set_yarn(config, model)
    return config


def _unchanged(weight: torch.Tensor) -> torch.Tensor:
    return weight


def _stage_values(model: ModelConfig, layout: Layout) -> dict[str, Any]:
    """List each chunk's layers in the model's order, where stages are uneven."""
    if layout.stage_layers is None or layout.pp == 1:
        return {}
    chunks = [["decoder"] * count for count in layout.stage_layers]
    chunks[0].insert(0, "embedding")
    chunks[-1] += ["mtp"] * model.mtp_layers + ["loss"]
    return {"pipeline_model_parallel_layout": chunks}


def _recompute_values(layout: Layout) -> dict[str, Any]:
    if layout.recompute == "none":
        return {}
    if layout.recompute == "selective":
        return {
            "recompute_granularity": "selective",
            "recompute_modules": list(layout.recompute_modules),
        }
    return {
        "recompute_granularity": "full",
        "recompute_method": "uniform",
        "recompute_num_layers": 1,
    }


def _fp8_values(precision: Precision) -> dict[str, Any]:
    """Return Transformer Engine's FP8; emulated FP8 replaces matmuls of the built model instead."""
    if not precision.is_native_fp8:
        return {}
    keeps_layers = precision.fp8_keep_first + precision.fp8_keep_last > 0
    return {
        "fp8": precision.formats,
        "fp8_recipe": precision.megatron_recipe,
        "fp8_param": precision.fp8_parameters,
        "first_last_layers_bf16": keeps_layers,
        "num_layers_at_start_in_bf16": precision.fp8_keep_first,
        "num_layers_at_end_in_bf16": precision.fp8_keep_last,
    }


def _activation_values(model: ModelConfig, precision: Precision) -> dict[str, Any]:
    if model.activation == "swiglu":
        return {}
    return {
        "activation_func": quick_gelu if precision.kernels == "te" else _plain_quick_gelu,
        "activation_func_clamp_value": 7.0,
        "glu_linear_offset": 1.0,
    }


def _plain_quick_gelu(gate: torch.Tensor) -> torch.Tensor:
    """Act as megatron-core's function, which torch compiles at its first call, in C++ on a CPU."""
    return gate * torch.sigmoid(1.702 * gate)


def _window_values(model: ModelConfig) -> dict[str, Any]:
    """Return the window without the query itself, and which layers (from 1) have none."""
    if model.sliding_window is None:
        return {}
    return {
        "window_size": (model.sliding_window - 1, 0),
        "window_attn_skip_freq": model.full_attention_interval,
    }


def _moe_values(model: ModelConfig, layout: Layout) -> dict[str, Any]:
    moe = model.moe
    if moe is None:
        return {}
    return {
        "num_moe_experts": moe.num_experts,
        "moe_router_topk": moe.top_k,
        "moe_ffn_hidden_size": moe.expert_ffn_hidden_size,
        "moe_layer_freq": [int(sparse) for sparse in model.sparse_layers],
        "moe_shared_expert_intermediate_size": moe.shared_expert_ffn_hidden_size or None,
        "moe_shared_expert_gate": moe.shared_expert_gate,
        "moe_router_score_function": moe.score_function,
        # Our router (router.py) does not use this; it makes megatron-core accept top_k = 1.
        "moe_router_pre_softmax": moe.score_function == "softmax" and not moe.normalize_top_k,
        "moe_router_load_balancing_type": moe.load_balancing,
        "moe_aux_loss_coeff": moe.aux_loss_coefficient,
        "moe_z_loss_coeff": moe.z_loss_coefficient or None,
        "moe_router_enable_expert_bias": moe.expert_bias,
        "moe_router_bias_update_rate": moe.expert_bias_update_rate,
        # Our router drops tokens; this tells the dispatcher that some may be missing.
        "moe_expert_capacity_factor": moe.capacity_factor,
        "moe_router_dtype": None if moe.router_dtype == "model" else moe.router_dtype,
        "moe_grouped_gemm": True,
        "moe_token_dispatcher_type": layout.dispatcher,
        "moe_flex_dispatcher_backend": layout.flex_backend,
    }


def scale_aux_losses(config: TransformerConfig, weight: float) -> None:
    """Scale auxiliary router losses by `weight` from now on, not by `weight` times the last one.

    The engine divides their sum over a step's tokens by the main loss's divisor, such as the
    number of answer tokens.
    """
    full = getattr(config, "_unscaled_aux_losses", None)
    if full is None:
        full = config._unscaled_aux_losses = (config.moe_aux_loss_coeff, config.moe_z_loss_coeff)
    balancing, z = full
    config.moe_aux_loss_coeff = weight * balancing
    config.moe_z_loss_coeff = None if z is None else weight * z


def _mla_values(model: ModelConfig) -> dict[str, Any]:
    mla, rope = model.mla, model.rope
    assert mla is not None
    return {
        "multi_latent_attention": True,
        "q_lora_rank": mla.q_lora_rank,
        "kv_lora_rank": mla.kv_lora_rank,
        "qk_head_dim": mla.qk_nope_head_dim,
        "qk_pos_emb_head_dim": mla.qk_rope_head_dim,
        "v_head_dim": mla.v_head_dim,
        "rope_type": "yarn" if rope.scaling == "yarn" else "rope",
        "rotary_base": rope.theta,
        # This also scales the softmax, as only YaRN does.
        "rotary_scaling_factor": rope.factor if rope.scaling == "yarn" else 1.0,
        "original_max_position_embeddings": rope.original_max_seq_len,
        "mscale": rope.mscale,
        "mscale_all_dim": rope.mscale_all_dim,
        "beta_fast": rope.beta_fast,
        "beta_slow": rope.beta_slow,
    }


def _set_yarn(config: TransformerConfig, model: ModelConfig) -> None:
    """Set YaRN's softmax scale where standard attention reads it."""
    config.yarn_rotary_scaling_factor = model.rope.factor
    config.yarn_mscale, config.yarn_mscale_all_dim = model.rope.mscale, model.rope.mscale_all_dim
