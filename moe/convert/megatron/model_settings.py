"""`[model]` of what Megatron says, key by key; what our models cannot be is refused."""

from typing import Any

from moe.config.experiment import validated
from moe.config.model import ModelConfig
from moe.convert.hub_config import sparse_pattern
from moe.convert.megatron.bridge_layers import qk_norm, refuse_unknown_classes
from moe.convert.megatron.settings import MegatronSettings
from moe.errors import ConfigError

LLAMA3 = {"original_max_seq_len": 8192, "low_frequency_factor": 1.0, "high_frequency_factor": 4.0}
"""What megatron-core's RotaryEmbedding has built in."""
BIAS_RATE = "moe_router_bias_update_rate"
NO_ATTENTION = "attention here is softmax attention over all heads, without a gate"
NO_HYBRID = "layers here are alike but for their feed-forward networks"
NO_ROUTER = "routers here have no such rule"
ONLY: dict[str, tuple[tuple[Any, ...], str]] = {
    "normalization": (("RMSNorm",), "norms here are RMSNorm"),
    "layernorm_zero_centered_gamma": ((False, None), "norms' weights here are not shifted by one"),
    "apply_residual_connection_post_layernorm": ((False, None), "residuals here skip the norm"),
    "gated_linear_unit": ((True,), "feed-forward networks here are gated"),
    "rotary_interleaved": ((False, None), "rotary halves here are not interleaved"),
    "seq_len_interpolation_factor": ((None, 1, 1.0), "positions here are not interpolated"),
    "old_context_len": ((None,), "Megatron-Bridge 0.2 scaled Llama 3.1's positions in its class"),
    "no_rope_freq": ((None, 0), "every layer here has rotary positions"),
    "mrope_section": ((None,), "rotary positions here have one section"),
    "qk_l2_norm": ((False, None), "query and key norms here are RMSNorm"),
    "softmax_scale": ((None,), "the softmax here is scaled by the head's dimension"),
    "attention_output_gate": ((False, None), NO_ATTENTION),
    "experimental_attention_variant": ((None,), NO_ATTENTION),
    "linear_attention_freq": ((None,), NO_ATTENTION),
    "enable_mhc_connections": ((False, None), "residuals here are one stream"),
    "use_mup": ((False, None), "no multipliers of muP here"),
    "is_hybrid_model": ((False, None), NO_HYBRID),
    "hybrid_layer_pattern": ((None,), NO_HYBRID),
    "hybrid_override_pattern": ((None,), NO_HYBRID),
    "heterogeneous_block_specs": ((False, None), NO_HYBRID),
    "heterogeneous_layers_config_path": ((None,), NO_HYBRID),
    "heterogeneous_layers_config_encoded_json": ((None, ""), NO_HYBRID),
    "spec": ((None,), "layers are built of a module that the checkpoint only names"),
    "mtp_use_repeated_layer": ((False, None), "each prediction layer here has its own weights"),
    "mtp_hybrid_override_pattern": ((None,), NO_HYBRID),
    "moe_latent_size": ((None,), "experts here work in the model's width"),
    "moe_apply_probs_on_input": ((False, None), "routing weights here scale experts' outputs"),
    "moe_router_topk_limited_devices": ((None,), NO_ROUTER),
    "moe_router_quantile_balancing_ema": ((None, 0), NO_ROUTER),
    "moe_router_force_load_balancing": ((False, None), "its routers did not choose experts"),
    "moe_router_force_biased": ((None,), "its routers did not choose experts"),
    "moe_mlp_glu_interleave_size": ((None,), "gate and up here are halves"),
    "moe_shared_expert_glu_interleave_size": ((None,), "gate and up here are halves"),
    "moe_input_jitter_eps": ((None, 0), NO_ROUTER),
}  # fmt: skip
"""Values without which a model computes something else; keys that a version lacks pass."""

NO_DROPOUT = "training here has no dropout"
IN_TRAINING = {
    "hidden_dropout": NO_DROPOUT,
    "attention_dropout": NO_DROPOUT,
    "mtp_detach_heads": "losses of prediction layers here train the whole model",
    "mtp_hsm": "prediction layers here read the depth before them alone",
    "moe_expert_rank_capacity_factor": "ranks here drop no tokens",
}
"""What changes training alone, and why it is not had here; zero and false are none."""


def model_of(settings: MegatronSettings, rows: int) -> ModelConfig:
    """Return the model; its vocabulary is at most the `rows` of the embedding.

    Raises:
        ConfigError: Names a key that is missing, or a value that has no equivalent here.
    """
    refuse_unknown_classes(settings)
    for key, (allowed, why) in ONLY.items():
        settings.only(key, *allowed, why=why)
    vocabulary = settings.integer_or_null("vocab_size") or rows
    if vocabulary > rows:
        raise ConfigError(
            f"{settings.origin}: vocab_size = {vocabulary}, but the embedding has {rows} rows: give"
            " the model with --model FILE.toml"
        )
    latent = settings.flag("multi_latent_attention")
    values = _sizes(settings) | _activation(settings) | {"vocab_size": vocabulary}
    values |= _latent(settings) if latent else _attention(settings)
    values["moe"] = _moe(settings) if settings.value("num_moe_experts") is not None else None
    model = validated(ModelConfig, values, settings.origin, ("model",), by_hand=False)
    return model.model_copy(update={"ffn_hidden_size": None}) if all(model.sparse_layers) else model


def only_in_training(settings: MegatronSettings) -> list[str]:
    """Return what training of the model had and models here have not, a line each."""
    notes = [
        f"{key} = {value} left behind: {why}"
        for key, why in IN_TRAINING.items()
        if isinstance(value := settings.values.get(key), int | float) and value
    ]
    if settings.flag("moe_router_enable_expert_bias") and settings.value(BIAS_RATE) == 0:
        rate = settings.defaults[BIAS_RATE]
        notes.append(f"{BIAS_RATE} = 0 left behind: training here moves the biases, by {rate}")
    return notes


def _sizes(settings: MegatronSettings) -> dict[str, Any]:
    length = "max_position_embeddings"
    return {
        "num_layers": settings.integer("num_layers"),
        "hidden_size": settings.integer("hidden_size"),
        "num_heads": settings.integer("num_attention_heads"),
        "ffn_hidden_size": settings.integer("ffn_hidden_size"),
        "max_seq_len": settings.integer(length if length in settings.values else "seq_length"),
        "tie_embeddings": settings.flag("share_embeddings_and_output_weights"),
        "norm_epsilon": settings.number("layernorm_epsilon"),
        "linear_bias": settings.flag("add_bias_linear"),
        "qkv_bias": settings.flag("add_qkv_bias"),
        "attention_sinks": _one_of(settings, "softmax_type", {"vanilla": False, "learnable": True}),
        "init_std": settings.number("init_method_std"),
        "mtp_layers": settings.integer("mtp_num_layers", least=0)
        if settings.value("mtp_num_layers") is not None
        else 0,
        "mtp_loss_coefficient": settings.number("mtp_loss_scaling_factor"),
    }


def _activation(settings: MegatronSettings) -> dict[str, Any]:
    kinds = {"silu": "swiglu", "swish": "swiglu", "quick_gelu": "clamped_swiglu"}
    kind = _one_of(settings, "activation_func", kinds)
    plain = kind == "swiglu"
    why = "feed-forward networks here are SwiGLU, or GPT-OSS's clamped form of it"
    settings.only("activation_func_clamp_value", None if plain else 7, why=why)
    settings.only("glu_linear_offset", 0 if plain else 1, why=why)
    return {"activation": kind}


def _attention(settings: MegatronSettings) -> dict[str, Any]:
    heads, hidden = settings.integer("num_attention_heads"), settings.integer("hidden_size")
    dim = settings.integer_or_null("kv_channels")
    kind = _one_of(settings, "position_embedding_type", {"rope": "none", "yarn": "yarn"})
    values: dict[str, Any] = {
        "num_kv_heads": settings.integer_or_null("num_query_groups"),
        "head_dim": None if dim is not None and dim * heads == hidden else dim,
        "qk_norm": qk_norm(settings),
        "rope": {
            "theta": settings.number("rotary_base"),
            "fraction": settings.number("rotary_percent"),
        },
    }
    if kind == "yarn":
        why = "YaRN of partly rotated heads differs from megatron-core's"
        settings.only("rotary_percent", 1, why=why)
        values["rope"] |= {
            "round_correction_range": settings.flag("yarn_correction_range_round_to_int")
        }
        values["rope"] |= _yarn(settings, "yarn_", "yarn_rotary_scaling_factor")
    elif settings.flag("rope_scaling"):
        factor = settings.number("rope_scaling_factor")
        values["rope"] |= LLAMA3 | {"scaling": "llama3", "factor": factor}
    return values | _window(settings)


def _window(settings: MegatronSettings) -> dict[str, Any]:
    window = settings.items("window_size", int)
    if window is None or window[:1] == [-1]:
        return {}
    if len(window) != 2 or window[0] < 0 or window[1] > 0:
        settings.only("window_size", None, why="windows here see positions before, and no later")
    why = "here every n-th layer sees all positions"
    interval = settings.value("window_attn_skip_freq")
    if isinstance(interval, list):
        settings.only("window_attn_skip_freq", None, why=why)
    return {
        "sliding_window": window[0] + 1,
        "full_attention_interval": settings.integer_or_null("window_attn_skip_freq"),
    }


def _latent(settings: MegatronSettings) -> dict[str, Any]:
    settings.only("position_embedding_type", "rope", why="positions of latent attention are rotary")
    settings.only("qk_layernorm", True, why="latent attention here has norms")
    settings.only("rope_scaling", False, None, why="latent attention here extends by YaRN alone")
    settings.only("rotary_percent", 1, why="latent attention here rotates its rotary dimensions")
    settings.only("window_size", None, why="latent attention here sees all positions")
    rope: dict[str, Any] = {"theta": settings.number("rotary_base")}
    # A null, which Megatron-LM's arguments have by default, is the class's own default there.
    if settings.values.get("rope_type") is None or settings.value("rope_type") == "yarn":
        # Megatron-LM's arguments lack the original length, which decides nothing at factor 1.
        length = "original_max_position_embeddings"
        if settings.number("rotary_scaling_factor") != 1 or length in settings.values:
            rope |= _yarn(settings, "", "rotary_scaling_factor")
    else:
        settings.only("rope_type", "rope")
        settings.only("mscale_all_dim", 0, None, why="without YaRN it changes the softmax alone")
    return {
        "mla": {
            "q_lora_rank": settings.integer_or_null("q_lora_rank"),
            "kv_lora_rank": settings.integer("kv_lora_rank"),
            "qk_nope_head_dim": settings.integer("qk_head_dim"),
            "qk_rope_head_dim": settings.integer("qk_pos_emb_head_dim"),
            "v_head_dim": settings.integer("v_head_dim"),
        },
        "rope": rope,
    }


def _yarn(settings: MegatronSettings, prefix: str, factor: str) -> dict[str, Any]:
    return {
        "scaling": "yarn",
        "factor": settings.number(factor),
        "original_max_seq_len": settings.integer(f"{prefix}original_max_position_embeddings"),
        "beta_fast": settings.number(f"{prefix}beta_fast"),
        "beta_slow": settings.number(f"{prefix}beta_slow"),
        "mscale": settings.number(f"{prefix}mscale"),
        "mscale_all_dim": settings.number(f"{prefix}mscale_all_dim"),
    }


def _moe(settings: MegatronSettings) -> dict[str, Any]:
    inner = settings.integer_or_null("moe_ffn_hidden_size")
    top_k = settings.integer("moe_router_topk")
    scores = _one_of(
        settings, "moe_router_score_function", {"softmax": "softmax", "sigmoid": "sigmoid"}
    )
    # Softmax over the chosen logits is softmax over all, made to sum to one.
    before = settings.flag("moe_router_pre_softmax")
    normalized = top_k > 1 if scores == "sigmoid" else not before
    groups, chosen = (
        settings.integer_or_null(f"moe_router_{key}") for key in ("num_groups", "group_topk")
    )
    if chosen is not None and scores == "softmax" and not before and top_k // chosen != 1:
        why = "it ranks groups by sums of logits, where routers here sum scores"
        settings.only("moe_router_pre_softmax", True, why=why)
    if settings.value("moe_expert_capacity_factor") is not None:
        why = "its order is none of positions"
        settings.only("moe_token_drop_policy", "probs", why=why)
    if _single(settings, "moe_router_load_balancing_type") == "sinkhorn":
        why = "its weights ignore the score function: give the model with --model FILE.toml"
        settings.only("moe_router_load_balancing_type", "none", why=why)
    scale = settings.number_or_null("moe_router_topk_scaling_factor")
    return {
        "num_experts": settings.integer("num_moe_experts"),
        "top_k": top_k,
        "expert_ffn_hidden_size": settings.integer("ffn_hidden_size") if inner is None else inner,
        "shared_expert_ffn_hidden_size": settings.integer_or_null(
            "moe_shared_expert_intermediate_size"
        ) or 0,
        "shared_expert_gate": settings.flag("moe_shared_expert_gate"),
        "score_function": scores,
        "normalize_top_k": normalized,
        "scaling_factor": 1.0 if scale is None else scale,
        "num_groups": groups,
        "group_top_k": chosen,
        "load_balancing": _single(settings, "moe_router_load_balancing_type"),
        "aux_loss_coefficient": _single(settings, "moe_aux_loss_coeff"),
        "z_loss_coefficient": settings.number_or_null("moe_z_loss_coeff") or 0.0,
        "expert_bias": settings.flag("moe_router_enable_expert_bias"),
        "expert_bias_update_rate": settings.number(BIAS_RATE) or settings.defaults[BIAS_RATE],
        "capacity_factor": settings.number_or_null("moe_expert_capacity_factor"),
        "router_dtype": "model"
        if settings.value("moe_router_dtype") is None
        else settings.text("moe_router_dtype"),
    } | _sparse_layers(settings)  # fmt: skip


def _sparse_layers(settings: MegatronSettings) -> dict[str, int]:
    """Return which layers are sparse: every n-th from the first, or as a list says."""
    layers = settings.integer("num_layers", most=10_000)
    frequency = settings.value("moe_layer_freq")
    if not isinstance(frequency, list):
        every = settings.integer("moe_layer_freq")
        return sparse_pattern(settings, [i % every == 0 for i in range(layers)])
    flags = settings.items("moe_layer_freq", int) or []
    if len(flags) != layers or {*flags} - {0, 1}:
        settings.only("moe_layer_freq", 1, why=f"wanted {layers} times 0 or 1")
    return sparse_pattern(settings, [flag == 1 for flag in flags])


def _one_of(settings: MegatronSettings, key: str, kinds: dict[str, Any]) -> Any:
    """Return what a text means here."""
    settings.text(key)
    settings.only(key, *kinds)
    return kinds[settings.text(key)]


def _single(settings: MegatronSettings, key: str) -> Any:
    """Return a value, or the only one of a list."""
    value = settings.value(key)
    if isinstance(value, list):
        if len(value) != 1:
            settings.only(key, None, why="routers here have one load-balancing loss")
        return value[0]
    return value
