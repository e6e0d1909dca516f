"""Sparse families of Hugging Face with grouped-query attention and a router of their own.

Sources: transformers 4.57 and 5 (`configuration_*.py`, `modeling_*.py`), read key by key.
"""

from typing import Any

from moe.config.model import ModelConfig
from moe.convert.class_defaults import CLASS_DEFAULTS
from moe.convert.family import Family, need_experts
from moe.convert.family_dense import attention_model, dense_model, switched_windows_hub
from moe.convert.hub_config import HubConfig, num_experts, sparse_pattern
from moe.convert.hub_layers import (
    FULL,
    SLIDING,
    full_layers,
    layer_types_hub,
    switched_windows,
    window_model,
)
from moe.convert.tensor_map import Names
from moe.errors import ConfigError


def _experts(config: HubConfig, inner: str, count: str = "num_local_experts") -> dict[str, Any]:
    """Return the `[model.moe]` values that all of these state alike; `inner` names the size."""
    return {
        "num_experts": num_experts(config, count),
        "top_k": config.integer("num_experts_per_tok"),
        "expert_ffn_hidden_size": config.integer(inner),
        "aux_loss_coefficient": config.number("router_aux_loss_coef"),
    }


def _experts_hub(model: ModelConfig, count: str, inner: str) -> dict[str, Any]:
    """Return their `config.json` values; `count` and `inner` name experts and their size."""
    moe = need_experts(model)
    return {
        count: moe.num_experts,
        "num_experts_per_tok": moe.top_k,
        inner: moe.expert_ffn_hidden_size,
        "router_aux_loss_coef": moe.aux_loss_coefficient,
    }


def _read_mixtral(config: HubConfig) -> dict[str, Any]:
    return attention_model(config) | {
        "sliding_window": config.integer_or_null("sliding_window"),
        "moe": _experts(config, "intermediate_size"),
    }


def _write_mixtral(model: ModelConfig) -> dict[str, Any]:
    return _experts_hub(model, "num_local_experts", "intermediate_size") | {
        "head_dim": model.query_head_dim,
        "sliding_window": model.sliding_window,
    }


def _read_minimax_m2(config: HubConfig) -> dict[str, Any]:
    config.only("scoring_func", "sigmoid")
    moe = _experts(config, "intermediate_size")
    return attention_model(config, is_partial=True) | {
        "qk_norm": "full",
        "moe": moe | {"score_function": "sigmoid", "expert_bias": True},
    }


def _write_minimax_m2(model: ModelConfig) -> dict[str, Any]:
    return _experts_hub(model, "num_local_experts", "intermediate_size") | {
        "head_dim": model.query_head_dim,
        "partial_rotary_factor": model.rope.fraction,
        "rotary_dim": int(model.query_head_dim * model.rope.fraction),
        "scoring_func": "sigmoid",
    }


def _read_olmoe(config: HubConfig) -> dict[str, Any]:
    config.only("clip_qkv", None)
    config.only("attention_bias", False)
    values = attention_model(config)
    dims = values["hidden_size"] // values["num_heads"]
    config.only("head_dim", None, dims, why="the norms of this family are hidden_size wide")
    moe = _experts(config, "intermediate_size", "num_experts")
    return values | {"head_dim": None, "qk_norm": "full", "moe": moe | _normalized(config)}


def _write_olmoe(model: ModelConfig) -> dict[str, Any]:
    normalized = {"norm_topk_prob": need_experts(model).normalize_top_k}
    return _experts_hub(model, "num_experts", "intermediate_size") | normalized


def _normalized(config: HubConfig) -> dict[str, bool]:
    return {"normalize_top_k": config.flag("norm_topk_prob")}


def _read_qwen_moe(config: HubConfig) -> dict[str, Any]:
    step, dense = config.integer("decoder_sparse_step"), config.items("mlp_only_layers", int) or []
    sparse = [i not in dense and (i + 1) % step == 0 for i in range(config.num_layers)]
    moe = _experts(config, "moe_intermediate_size", "num_experts")
    return dense_model(config) | {"moe": moe | _normalized(config) | sparse_pattern(config, sparse)}


def _write_qwen_moe(model: ModelConfig) -> dict[str, Any]:
    moe = need_experts(model)
    dense = [i for i, sparse in enumerate(model.sparse_layers) if not sparse]
    return _experts_hub(model, "num_experts", "moe_intermediate_size") | {
        "head_dim": model.query_head_dim,
        "norm_topk_prob": moe.normalize_top_k,
        "intermediate_size": model.ffn_hidden_size or moe.expert_ffn_hidden_size,
        "decoder_sparse_step": 1,
        "mlp_only_layers": dense,
    }


def _read_qwen2_moe(config: HubConfig) -> dict[str, Any]:
    if config.flag("use_sliding_window") and config.value("layer_types") is None:
        raise ConfigError(
            f"{config.origin}: layer_types is missing: of use_sliding_window = true transformers 4"
            " and 5 make different layers; write out which ones slide"
        )
    values = _read_qwen_moe(config)
    shared = {
        "shared_expert_ffn_hidden_size": config.integer("shared_expert_intermediate_size"),
        "shared_expert_gate": True,
    }
    return (
        values
        | switched_windows(config, full_layers)
        | {"qkv_bias": config.flag("qkv_bias"), "moe": values["moe"] | shared}
    )


def _write_qwen2_moe(model: ModelConfig) -> dict[str, Any]:
    inner = need_experts(model).shared_expert_ffn_hidden_size
    return (
        _write_qwen_moe(model)
        | switched_windows_hub(model)
        | {"shared_expert_intermediate_size": inner, "qkv_bias": model.qkv_bias}
    )


def _read_qwen3_moe(config: HubConfig) -> dict[str, Any]:
    config.only("attention_bias", False)
    window = config.integer_or_null("sliding_window")
    slides = config.flag("use_sliding_window")
    return _read_qwen_moe(config) | {
        "qk_norm": "head",
        "sliding_window": window if slides else None,
    }


def _write_qwen3_moe(model: ModelConfig) -> dict[str, Any]:
    slides = model.sliding_window is not None
    windows = {"use_sliding_window": slides, "sliding_window": model.sliding_window}
    return _write_qwen_moe(model) | windows


def _alternating(config: HubConfig) -> list[str]:
    return [FULL if i % 2 else SLIDING for i in range(config.num_layers)]


def _read_gpt_oss(config: HubConfig) -> dict[str, Any]:
    config.only("attention_bias", True)
    config.only("swiglu_alpha", 1.702)
    config.only("swiglu_limit", 7.0)
    return (
        attention_model(config)
        | window_model(config, _alternating)
        | {
            "linear_bias": True,
            "activation": "clamped_swiglu",
            "attention_sinks": True,
            "moe": _experts(config, "intermediate_size"),
        }
    )


def _write_gpt_oss(model: ModelConfig) -> dict[str, Any]:
    values = _experts_hub(model, "num_local_experts", "intermediate_size") | {
        "head_dim": model.query_head_dim,
        # The class makes a mask of the window even where no layer slides.
        "sliding_window": model.sliding_window or CLASS_DEFAULTS["gpt_oss"]["sliding_window"],
        "layer_types": layer_types_hub(model),
        "attention_bias": True,
        "swiglu_limit": 7.0,
    }
    if model.rope.scaling == "none":
        # To transformers 5, null is this class's own YaRN.
        values["rope_scaling"] = {"rope_type": "default"}
    return values


_MIXTRAL = Names(mlp="block_sparse_moe", gate="w1", up="w3", down="w2")
_MINIMAX = Names(mlp="block_sparse_moe", gate="w1", up="w3", down="w2", is_bias_in_router=False)
_QWEN = Names(shared="shared_expert")
_GPT_OSS = Names(router="router", fused_experts=True)

SPARSE_FAMILIES = tuple(
    Family(model_type=model_type, architecture=stem, names=names, read=read, write=write)
    for model_type, stem, names, read, write in (
        ("mixtral", "Mixtral", _MIXTRAL, _read_mixtral, _write_mixtral),
        ("olmoe", "Olmoe", Names(), _read_olmoe, _write_olmoe),
        ("qwen2_moe", "Qwen2Moe", _QWEN, _read_qwen2_moe, _write_qwen2_moe),
        ("qwen3_moe", "Qwen3Moe", Names(), _read_qwen3_moe, _write_qwen3_moe),
        ("gpt_oss", "GptOss", _GPT_OSS, _read_gpt_oss, _write_gpt_oss),
        ("minimax_m2", "MiniMaxM2", _MINIMAX, _read_minimax_m2, _write_minimax_m2),
    )
)
