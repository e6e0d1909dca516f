"""Sparse families of Hugging Face with grouped-query attention and softmax routers.

Sources: transformers 4.57 and 5 (`configuration_*.py`, `modeling_*.py`), read key by key.
"""

from typing import Any

from moe.config.model import ModelConfig
from moe.convert.family import Family, need_experts
from moe.convert.family_dense import dense_model
from moe.convert.hub_config import HubConfig, common_model, grouped_queries, sparse_pattern
from moe.convert.tensor_map import Names
from moe.errors import ConfigError


def _experts(config: HubConfig, inner: str) -> dict[str, Any]:
    """Return the `[model.moe]` values that all of these state alike; `inner` names the size."""
    return {
        # The key of some families changed between transformers 4 and 5.
        "num_experts": config.get("num_experts") or config.need("num_local_experts"),
        "top_k": config.need("num_experts_per_tok"),
        "expert_ffn_hidden_size": config.need(inner),
        "aux_loss_coefficient": config.get("router_aux_loss_coef", 0.001),
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
    return (
        common_model(config)
        | grouped_queries(config)
        | {
            "sliding_window": config.get("sliding_window"),
            "moe": _experts(config, "intermediate_size"),
        }
    )


def _write_mixtral(model: ModelConfig) -> dict[str, Any]:
    return _experts_hub(model, "num_local_experts", "intermediate_size") | {
        "head_dim": model.query_head_dim,
        "sliding_window": model.sliding_window,
    }


def _read_olmoe(config: HubConfig) -> dict[str, Any]:
    config.only("clip_qkv")
    config.only("attention_bias", False)
    return (
        common_model(config)
        | {"num_kv_heads": config.get("num_key_value_heads"), "qk_norm": "full"}
        | {"moe": _experts(config, "intermediate_size") | _normalized(config)}
    )


def _write_olmoe(model: ModelConfig) -> dict[str, Any]:
    normalized = {"norm_topk_prob": need_experts(model).normalize_top_k}
    return _experts_hub(model, "num_experts", "intermediate_size") | normalized


def _normalized(config: HubConfig) -> dict[str, bool]:
    return {"normalize_top_k": config.get("norm_topk_prob", False)}


def _read_qwen_moe(config: HubConfig) -> dict[str, Any]:
    config.only("use_sliding_window", False)
    step, dense = config.get("decoder_sparse_step", 1), config.get("mlp_only_layers", [])
    sparse = [
        i not in dense and (i + 1) % step == 0 for i in range(config.need("num_hidden_layers"))
    ]
    moe = _experts(config, "moe_intermediate_size") | _normalized(config)
    return dense_model(config) | {"moe": moe | sparse_pattern(config, sparse)}


def _write_qwen_moe(model: ModelConfig) -> dict[str, Any]:
    moe = need_experts(model)
    dense = [i for i, sparse in enumerate(model.sparse_layers) if not sparse]
    return _experts_hub(model, "num_experts", "moe_intermediate_size") | {
        "norm_topk_prob": moe.normalize_top_k,
        "intermediate_size": model.ffn_hidden_size or moe.expert_ffn_hidden_size,
        "decoder_sparse_step": 1,
        "mlp_only_layers": dense,
        "use_sliding_window": False,
    }


def _read_qwen2_moe(config: HubConfig) -> dict[str, Any]:
    config.only("qkv_bias", True)
    values = _read_qwen_moe(config)
    shared = {
        "shared_expert_ffn_hidden_size": config.need("shared_expert_intermediate_size"),
        "shared_expert_gate": True,
    }
    return values | {"head_dim": None, "qkv_bias": True, "moe": values["moe"] | shared}


def _write_qwen2_moe(model: ModelConfig) -> dict[str, Any]:
    moe = need_experts(model)
    inner = moe.shared_expert_ffn_hidden_size
    return _write_qwen_moe(model) | {"shared_expert_intermediate_size": inner}


def _read_qwen3_moe(config: HubConfig) -> dict[str, Any]:
    config.only("attention_bias", False)
    return _read_qwen_moe(config) | {"qk_norm": "head"}


def _write_qwen3_moe(model: ModelConfig) -> dict[str, Any]:
    return _write_qwen_moe(model) | {"head_dim": model.query_head_dim}


def _read_gpt_oss(config: HubConfig) -> dict[str, Any]:
    config.only("attention_bias", True)
    config.only("swiglu_alpha", 1.702)
    config.only("swiglu_limit", 7.0)
    layers = config.need("num_hidden_layers")
    default = ["full_attention" if i % 2 else "sliding_attention" for i in range(layers)]
    if config.get("layer_types", default) != default:
        raise ConfigError(f"{config.origin}: layer_types do not alternate sliding and full")
    return (
        common_model(config)
        | grouped_queries(config)
        | {
            "linear_bias": True,
            "activation": "clamped_swiglu",
            "sliding_window": config.need("sliding_window"),
            "full_attention_interval": 2,
            "attention_sinks": True,
            "moe": _experts(config, "intermediate_size"),
        }
    )


def _write_gpt_oss(model: ModelConfig) -> dict[str, Any]:
    types = ["full_attention" if w is None else "sliding_attention" for w in model.layer_windows]
    return _experts_hub(model, "num_local_experts", "intermediate_size") | {
        "head_dim": model.query_head_dim,
        "sliding_window": model.sliding_window,
        "layer_types": types,
        "attention_bias": True,
        "swiglu_limit": 7.0,
    }


_MIXTRAL = Names(mlp="block_sparse_moe", gate="w1", up="w3", down="w2")
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
    )
)
