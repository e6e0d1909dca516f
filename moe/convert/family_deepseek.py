"""Families of Hugging Face with DeepSeek's experts and latent attention.

Sources: transformers 4.57 and 5 (`configuration_*.py`, `modeling_*.py`), read key by key.
"""

from typing import Any

from moe.config.model import ModelConfig
from moe.convert.family import Family, MisfitError, need_experts
from moe.convert.hub_config import (
    HubConfig,
    check_hidden_size,
    common_model,
    num_experts,
    sparse_pattern,
)
from moe.convert.hub_layers import DENSE, SPARSE, listed_layers, mlp_layer_types_hub
from moe.convert.hub_rope import rope_model
from moe.convert.tensor_map import Names

DEEPSEEK_NAMES = Names(has_empty_shared=True)
ROUTER_TENSORS = ("e_score_correction_bias", ".mlp.gate.weight")
"""What their classes keep in FP32 (`_keep_in_fp32_modules_strict` of transformers 5)."""
LATENT_NORM_EPSILON = 1e-6
"""Of `q_a_layernorm` and `kv_a_layernorm`, whatever `rms_norm_eps` says: their default."""


def _experts(config: HubConfig) -> dict[str, Any]:
    """Return the `[model.moe]` values that all families with DeepSeek's experts state alike."""
    inner = config.integer("moe_intermediate_size")
    loss = "seq_aux_loss" if config.flag("seq_aux") else "aux_loss"
    return {
        "num_experts": num_experts(config, "n_routed_experts"),
        "top_k": config.integer("num_experts_per_tok"),
        "expert_ffn_hidden_size": inner,
        "shared_expert_ffn_hidden_size": inner * config.integer("n_shared_experts", least=0),
        "scaling_factor": config.number("routed_scaling_factor"),
        "load_balancing": loss,
        "aux_loss_coefficient": config.number("aux_loss_alpha"),
    }


def sigmoid_experts(config: HubConfig) -> dict[str, Any]:
    """Return those of DeepSeek-V3's router: sigmoid scores, a balancing bias, perhaps groups."""
    config.only("scoring_func", "sigmoid")
    config.only("topk_method", "noaux_tc")
    values = _experts(config) | {
        "score_function": "sigmoid",
        "expert_bias": True,
        "normalize_top_k": config.flag("norm_topk_prob"),
    }
    groups = _groups(config)
    if groups["num_groups"] > 1:
        values |= groups | {"group_score_experts": 2}
    return values


def _groups(config: HubConfig) -> dict[str, int]:
    count = config.integer("n_group")
    # Of a single group, another number of groups to keep masks all experts, or is an error.
    kept = config.integer("topk_group", most=count)
    return {"num_groups": count, "group_top_k": kept}


def dense_first(config: HubConfig) -> dict[str, int]:
    """Return the leading dense layers."""
    return {"first_dense_layers": config.integer("first_k_dense_replace", least=0)}


def _latent_model(config: HubConfig, moe: dict[str, Any]) -> dict[str, Any]:
    config.only("attention_bias", False)
    config.only("moe_layer_freq", 1)
    heads = config.integer("num_attention_heads")
    why = "latent attention has as many as num_attention_heads"
    config.only("num_key_value_heads", None, heads, why=why)
    mla = {
        key: config.integer(key)
        for key in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    }
    return common_model(config) | {
        "rope": rope_model(config, scales_softmax=True),
        "ffn_hidden_size": config.integer("intermediate_size"),
        "mla": mla
        | {
            "q_lora_rank": config.integer_or_null("q_lora_rank"),
            "norm_epsilon": LATENT_NORM_EPSILON,
        },
        "moe": moe,
    }


def _read_deepseek_v2(config: HubConfig) -> dict[str, Any]:
    check_hidden_size(config)
    config.only("scoring_func", "softmax")
    config.only("mlp_bias", False)
    why = "transformers' DeepSeek-V2 never normalizes"
    config.only("norm_topk_prob", False, None, why=why)
    config.only("topk_method", "greedy", "group_limited_greedy")
    moe = _experts(config) | dense_first(config) | {"normalize_top_k": False}
    if config.value("topk_method") == "group_limited_greedy":
        moe |= _groups(config) | {"group_score_experts": 1}
    return _latent_model(config, moe)


def _read_deepseek_v3(config: HubConfig) -> dict[str, Any]:
    config.only("rope_interleave", True)
    return _latent_model(config, sigmoid_experts(config) | dense_first(config))


def _one_dense(config: HubConfig) -> list[str]:
    return [DENSE] + [SPARSE] * (config.num_layers - 1)


def _read_glm4_moe_lite(config: HubConfig) -> dict[str, Any]:
    config.only("rope_interleave", True)
    dims = config.integer("qk_rope_head_dim")
    config.only("head_dim", None, dims, why="it is qk_rope_head_dim to transformers")
    layers = listed_layers(config, "mlp_layer_types", _one_dense, {DENSE, SPARSE})
    pattern = sparse_pattern(config, [kind == SPARSE for kind in layers])
    return _latent_model(config, sigmoid_experts(config) | pattern)


def write_experts(family: str, model: ModelConfig) -> dict[str, Any]:
    """Return the `config.json` values of DeepSeek's experts.

    Raises:
        MisfitError: The shared experts are not whole ones.
    """
    moe = need_experts(model)
    shared, rest = divmod(moe.shared_expert_ffn_hidden_size, moe.expert_ffn_hidden_size)
    if rest:
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
        "aux_loss_alpha": moe.aux_loss_coefficient,
        "seq_aux": moe.load_balancing == "seq_aux_loss",
    }


def write_groups(model: ModelConfig) -> dict[str, Any]:
    """Return the `config.json` values of groups where one group means none."""
    moe = need_experts(model)
    return {"n_group": moe.num_groups or 1, "topk_group": moe.group_top_k or 1}


def _write_latent(family: str, model: ModelConfig) -> dict[str, Any]:
    if model.mla is None:
        raise MisfitError(family, ["model without [model.mla]"])
    sizes = model.mla.model_dump(exclude={"norm_epsilon"})
    return sizes | write_experts(family, model) | {"attention_bias": False}


def _write_deepseek_v2(model: ModelConfig) -> dict[str, Any]:
    moe = need_experts(model)
    return _write_latent("deepseek_v2", model) | {
        "scoring_func": moe.score_function,
        "topk_method": "group_limited_greedy" if moe.num_groups else "greedy",
        "n_group": moe.num_groups,
        "topk_group": moe.group_top_k,
    }


def _write_latent_sigmoid(family: str, model: ModelConfig) -> dict[str, Any]:
    return (
        _write_latent(family, model)
        | write_groups(model)
        | {
            "scoring_func": need_experts(model).score_function,
            "topk_method": "noaux_tc",
            "rope_interleave": True,
        }
    )


def _write_deepseek_v3(model: ModelConfig) -> dict[str, Any]:
    return _write_latent_sigmoid("deepseek_v3", model)


def _write_glm4_moe_lite(model: ModelConfig) -> dict[str, Any]:
    layers = {"mlp_layer_types": mlp_layer_types_hub(model)}
    return _write_latent_sigmoid("glm4_moe_lite", model) | layers


DEEPSEEK_FAMILIES = (
    Family(
        model_type="deepseek_v2",
        architecture="DeepseekV2",
        names=DEEPSEEK_NAMES,
        fp32_endings=ROUTER_TENSORS,
        read=_read_deepseek_v2,
        write=_write_deepseek_v2,
    ),
    Family(
        model_type="deepseek_v3",
        architecture="DeepseekV3",
        names=DEEPSEEK_NAMES,
        fp32_endings=ROUTER_TENSORS,
        read=_read_deepseek_v3,
        write=_write_deepseek_v3,
        predicts=True,
    ),
    Family(
        model_type="glm4_moe_lite",
        architecture="Glm4MoeLite",
        names=DEEPSEEK_NAMES,
        fp32_endings=ROUTER_TENSORS,
        read=_read_glm4_moe_lite,
        write=_write_glm4_moe_lite,
        predicts=True,
    ),
)
