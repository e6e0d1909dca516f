"""Megatron-LM's arguments of a model, as its `--use-checkpoint-args` and Megatron-Bridge read them.

Which they read: `load_args_from_checkpoint` and `core_transformer_config_from_args` of Megatron-LM,
`mlm_compat/arguments.py` of Megatron-Bridge.
"""

from typing import Any

from moe.config.model import ModelConfig
from moe.convert.family import functional_config, model_differences
from moe.convert.megatron.model_settings import model_of
from moe.convert.megatron.settings import of_arguments
from moe.errors import ConfigError

NEUTRAL: dict[str, Any] = {
    "transformer_impl": "transformer_engine", "normalization": "RMSNorm",
    "layernorm_zero_centered_gamma": False, "apply_layernorm_1p": False,
    "no_persist_layer_norm": False, "squared_relu": False, "bias_swiglu_fusion": True,
    "bias_gelu_fusion": False, "add_position_embedding": True, "rotary_interleaved": False,
    "rotary_seq_len_interpolation_factor": None, "qk_l2_norm": False, "softmax_scale": None,
    "attention_dropout": 0.0, "hidden_dropout": 0.0, "apply_query_key_layer_scaling": False,
    "apply_residual_connection_post_layernorm": False, "init_method_xavier_uniform": False,
    "spec": None, "yaml_cfg": None, "hybrid_layer_pattern": None, "is_hybrid_model": False,
    "heterogeneous_layers_config_path": None, "heterogeneous_layers_config_encoded_json": None,
    "experimental_attention_variant": None, "config_logger_dir": "", "cp_comm_type": ["p2p"],
    "fp16_lm_cross_entropy": False, "fp8_param_gather": False, "fp4_param_gather": False,
    "overlap_p2p_comm": True, "decoder_first_pipeline_num_layers": None,
    "decoder_last_pipeline_num_layers": None, "tensor_model_parallel_size": 1,
    "pipeline_model_parallel_size": 1, "virtual_pipeline_model_parallel_size": None,
    "context_parallel_size": 1, "expert_model_parallel_size": 1, "te_precision_config_file": None,
    "make_vocab_size_divisible_by": 1, "tokenizer_type": None, "tokenizer_model": None,
    "ckpt_format": "torch_dist", "use_dist_ckpt": True, "async_save": False,
    "init_model_with_meta_device": False, "no_save_optim": True, "no_save_rng": True,
    "consumed_train_samples": 0, "consumed_valid_samples": 0, "skipped_train_samples": 0,
}  # fmt: skip
"""What every model of ours has, and what a checkpoint of weights alone says of training."""


def arguments_of(model: ModelConfig) -> dict[str, Any]:
    """Return the arguments, proven by reading them back.

    Raises:
        ConfigError: Megatron-LM has no such model; says what it lacks.
    """
    values = NEUTRAL | _sizes(model) | _attention(model) | _rope(model) | _moe(model)
    try:
        back = model_of(of_arguments("arguments", values), model.vocab_size)
    except ConfigError as error:
        raise ConfigError(f"Megatron-LM has no such model: {error}") from None
    wrong = model_differences(functional_config(model), functional_config(back))
    if wrong:
        raise ConfigError(f"Megatron-LM has no {', '.join(wrong)}: the model cannot be converted")
    return values


def _sizes(model: ModelConfig) -> dict[str, Any]:
    clamped = model.activation == "clamped_swiglu"
    return {
        "num_layers": model.num_layers,
        "hidden_size": model.hidden_size,
        "ffn_hidden_size": model.ffn_hidden_size or model.hidden_size,
        "num_attention_heads": model.num_heads,
        "vocab_size": model.vocab_size,
        "padded_vocab_size": model.vocab_size,
        "max_position_embeddings": model.max_seq_len,
        "seq_length": model.max_seq_len,
        "untie_embeddings_and_output_weights": not model.tie_embeddings,
        "layernorm_epsilon": model.norm_epsilon,
        "norm_epsilon": model.norm_epsilon,
        "add_bias_linear": model.linear_bias,
        "add_qkv_bias": model.qkv_bias,
        "swiglu": not clamped,
        "quick_geglu": clamped,
        "activation_func_clamp_value": 7.0 if clamped else None,
        "glu_linear_offset": 1.0 if clamped else 0.0,
        "init_method_std": model.init_std,
        "mtp_num_layers": model.mtp_layers or None,
        "mtp_loss_scaling_factor": model.mtp_loss_coefficient,
    }


def _attention(model: ModelConfig) -> dict[str, Any]:
    window = model.sliding_window
    values: dict[str, Any] = {
        "group_query_attention": model.mla is None,
        "num_query_groups": model.kv_heads,
        "kv_channels": model.query_head_dim,
        "qk_layernorm": model.qk_norm != "none" or model.mla is not None,
        "softmax_type": "learnable" if model.attention_sinks else "vanilla",
        "window_size": None if window is None else (window - 1, 0),
        "window_attn_skip_freq": model.full_attention_interval,
        "multi_latent_attention": model.mla is not None,
    }
    if model.mla is not None:
        values |= {
            "q_lora_rank": model.mla.q_lora_rank,
            "kv_lora_rank": model.mla.kv_lora_rank,
            "qk_head_dim": model.mla.qk_nope_head_dim,
            "qk_pos_emb_head_dim": model.mla.qk_rope_head_dim,
            "v_head_dim": model.mla.v_head_dim,
        }
    return values


def _rope(model: ModelConfig) -> dict[str, Any]:
    rope = model.rope
    yarn = rope.scaling == "yarn"
    values = {
        "position_embedding_type": "yarn" if yarn and model.mla is None else "rope",
        "use_rotary_position_embeddings": True,
        "rope_type": None if model.mla is None else "yarn" if yarn else "rope",
        "rotary_base": rope.theta,
        "rotary_percent": rope.fraction,
        "use_rope_scaling": rope.scaling == "llama3",
        "rotary_scaling_factor": rope.factor if yarn else 1.0,
        "mscale": rope.mscale if yarn else 1.0,
        "mscale_all_dim": rope.mscale_all_dim if yarn else 0.0,
    }
    if rope.scaling == "llama3":
        values["rope_scaling_factor"] = rope.factor
    if yarn:
        prefix = "" if model.mla is not None else "yarn_"
        values |= {
            f"{prefix}original_max_position_embeddings": rope.original_max_seq_len,
            f"{prefix}beta_fast": rope.beta_fast,
            f"{prefix}beta_slow": rope.beta_slow,
            "yarn_correction_range_round_to_int": rope.round_correction_range,
        }
    return values


def _moe(model: ModelConfig) -> dict[str, Any]:
    moe = model.moe
    if moe is None:
        return {"num_experts": None}
    sparse = model.sparse_layers
    softmax = moe.score_function == "softmax"
    return {
        "num_experts": moe.num_experts,
        "moe_layer_freq": 1 if all(sparse) else [int(one) for one in sparse],
        "moe_router_topk": moe.top_k,
        "moe_ffn_hidden_size": moe.expert_ffn_hidden_size,
        "moe_shared_expert_intermediate_size": moe.shared_expert_ffn_hidden_size or None,
        "moe_shared_expert_gate": moe.shared_expert_gate,
        "moe_router_score_function": moe.score_function,
        "moe_router_pre_softmax": softmax and not moe.normalize_top_k,
        "moe_router_topk_scaling_factor": None if moe.scaling_factor == 1 else moe.scaling_factor,
        "moe_router_num_groups": moe.num_groups,
        "moe_router_group_topk": moe.group_top_k,
        "moe_router_load_balancing_type": moe.load_balancing,
        "moe_aux_loss_coeff": moe.aux_loss_coefficient,
        "moe_z_loss_coeff": moe.z_loss_coefficient or None,
        "moe_router_enable_expert_bias": moe.expert_bias,
        "moe_router_bias_update_rate": moe.expert_bias_update_rate,
        "moe_router_dtype": None if moe.router_dtype == "model" else moe.router_dtype,
        "moe_router_force_load_balancing": bool(moe.forced_balance),
        "moe_expert_capacity_factor": moe.capacity_factor,
        "moe_token_drop_policy": moe.token_drop_policy,
        "moe_grouped_gemm": True,
        "moe_token_dispatcher_type": "alltoall",
    }
