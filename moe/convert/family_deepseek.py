"""DeepSeek's families of Hugging Face, and GLM's, whose experts are DeepSeek-V3's.

Sources: transformers 4.57 and 5 (`configuration_*.py`, `modeling_*.py`), read key by key.
"""

from typing import Any

from moe.config.model import ModelConfig
from moe.convert.family import Family, MisfitError, need_experts
from moe.convert.family_dense import dense_model
from moe.convert.hub_config import HubConfig, common_model


def _experts(config: HubConfig) -> dict[str, Any]:
    """Return the `[model.moe]` values that DeepSeek's families and GLM's state alike."""
    inner = config.need("moe_intermediate_size")
    return {
        "num_experts": config.get("n_routed_experts") or config.need("num_local_experts"),
        "top_k": config.need("num_experts_per_tok"),
        "expert_ffn_hidden_size": inner,
        "shared_expert_ffn_hidden_size": inner * config.need("n_shared_experts"),
        "first_dense_layers": config.get("first_k_dense_replace", 0),
        "scaling_factor": config.get("routed_scaling_factor", 1.0),
        "load_balancing": "seq_aux_loss",
        "aux_loss_coefficient": config.get("aux_loss_alpha", 0.001),
    }


def _sigmoid_experts(config: HubConfig) -> dict[str, Any]:
    """Return those of DeepSeek-V3's router: sigmoid scores, a balancing bias, perhaps groups."""
    values = _experts(config) | {
        "score_function": "sigmoid",
        "expert_bias": True,
        "normalize_top_k": config.get("norm_topk_prob", True),
    }
    if config.get("n_group", 1) > 1:
        groups = {"num_groups": config.need("n_group"), "group_top_k": config.need("topk_group")}
        values |= groups | {"group_score_experts": 2}
    return values


def _latent_model(config: HubConfig, moe: dict[str, Any]) -> dict[str, Any]:
    config.only("attention_bias", False)
    config.only("moe_layer_freq", 1)
    mla = {
        key: config.get(key) if key == "q_lora_rank" else config.need(key)
        for key in (
            "q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"
        )
    }  # fmt: skip
    inner_dense = {"ffn_hidden_size": config.need("intermediate_size")}
    return common_model(config) | inner_dense | {"mla": mla, "moe": moe}


def _read_deepseek_v2(config: HubConfig) -> dict[str, Any]:
    config.only("scoring_func", "softmax")
    config.only("norm_topk_prob", False, why="transformers' DeepSeek-V2 never normalizes")
    config.only("topk_method", "greedy", "group_limited_greedy")
    moe = _experts(config) | {"normalize_top_k": False}
    if config.get("topk_method") == "group_limited_greedy":
        groups = {"num_groups": config.need("n_group"), "group_top_k": config.need("topk_group")}
        moe |= groups | {"group_score_experts": 1}
    return _latent_model(config, moe)


def _read_deepseek_v3(config: HubConfig) -> dict[str, Any]:
    config.only("scoring_func", "sigmoid")
    config.only("topk_method", "noaux_tc")
    config.only("rope_interleave", True)
    return _latent_model(config, _sigmoid_experts(config))


def _read_glm4_moe(config: HubConfig) -> dict[str, Any]:
    qk_norm = "head" if config.get("use_qk_norm", False) else "none"
    return dense_model(config, rotated=0.5) | {
        "qkv_bias": config.get("attention_bias", False),
        "qk_norm": qk_norm,
        "moe": _sigmoid_experts(config),
    }


def _write_experts(family: str, model: ModelConfig) -> dict[str, Any]:
    moe = need_experts(model)
    shared, rest = divmod(moe.shared_expert_ffn_hidden_size, moe.expert_ffn_hidden_size)
    if rest or not shared:
        size = f"shared_expert_ffn_hidden_size = {moe.shared_expert_ffn_hidden_size}"
        raise MisfitError(family, [size])
    return {
        "intermediate_size": model.ffn_hidden_size or moe.expert_ffn_hidden_size,
        "moe_intermediate_size": moe.expert_ffn_hidden_size,
        "n_routed_experts": moe.num_experts,
        "num_experts_per_tok": moe.top_k,
        "n_shared_experts": shared,
        "first_k_dense_replace": model.sparse_layers.index(True),
        "routed_scaling_factor": moe.scaling_factor,
        "norm_topk_prob": moe.normalize_top_k,
        "num_nextn_predict_layers": model.mtp_layers,
    }


def _write_latent(family: str, model: ModelConfig) -> dict[str, Any]:
    if model.mla is None:
        raise MisfitError(family, ["model without [model.mla]"])
    return model.mla.model_dump() | _write_experts(family, model) | {"attention_bias": False}


def _write_deepseek_v2(model: ModelConfig) -> dict[str, Any]:
    moe = need_experts(model)
    return _write_latent("deepseek_v2", model) | {
        "scoring_func": moe.score_function,
        "topk_method": "group_limited_greedy" if moe.num_groups else "greedy",
        "n_group": moe.num_groups,
        "topk_group": moe.group_top_k,
    }


def _write_deepseek_v3(model: ModelConfig) -> dict[str, Any]:
    moe = need_experts(model)
    return _write_latent("deepseek_v3", model) | {
        "scoring_func": moe.score_function,
        "topk_method": "noaux_tc",
        "n_group": moe.num_groups or 1,
        "topk_group": moe.group_top_k or 1,
        "rope_interleave": True,
    }


def _write_glm4_moe(model: ModelConfig) -> dict[str, Any]:
    moe = need_experts(model)
    return _write_experts("glm4_moe", model) | {
        "head_dim": model.query_head_dim,
        "attention_bias": model.qkv_bias,
        "use_qk_norm": model.qk_norm == "head",
        "partial_rotary_factor": model.rope.fraction,
        "n_group": moe.num_groups or 1,
        "topk_group": moe.group_top_k or 1,
    }


DEEPSEEK_FAMILIES = (
    Family(
        model_type="deepseek_v2",
        architecture="DeepseekV2",
        read=_read_deepseek_v2,
        write=_write_deepseek_v2,
    ),
    Family(
        model_type="deepseek_v3",
        architecture="DeepseekV3",
        read=_read_deepseek_v3,
        write=_write_deepseek_v3,
        predicts=True,
    ),
    Family(
        model_type="glm4_moe",
        architecture="Glm4Moe",
        read=_read_glm4_moe,
        write=_write_glm4_moe,
        predicts=True,
    ),
)
