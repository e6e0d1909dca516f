"""Hugging Face's model families: their configuration as ours, and ours as theirs.

Sources: transformers 4.57 and 5 (`configuration_*.py`, `modeling_*.py`), read key by key.
"""

from collections.abc import Iterable
from typing import Any

from moe.config.model import ModelConfig
from moe.convert_config import HubConfig, common_model, grouped_queries, sparse_pattern
from moe.convert_family import Family, MisfitError
from moe.convert_map import Names
from moe.errors import ConfigError


def _dense(config: HubConfig) -> dict[str, Any]:
    return (
        common_model(config)
        | grouped_queries(config)
        | {"ffn_hidden_size": config.need("intermediate_size")}
    )


def _read_llama(config: HubConfig) -> dict[str, Any]:
    biased = config.get("attention_bias", False)
    if biased != config.get("mlp_bias", False):
        raise ConfigError(f"{config.origin}: attention_bias and mlp_bias differ: no such model")
    return _dense(config) | {"linear_bias": biased}


def _write_llama(model: ModelConfig) -> dict[str, Any]:
    return {
        "intermediate_size": model.ffn_hidden_size,
        "head_dim": model.query_head_dim,
        "attention_bias": model.linear_bias,
        "mlp_bias": model.linear_bias,
    }


def _read_qwen3(config: HubConfig) -> dict[str, Any]:
    config.only("attention_bias", False)
    config.only("use_sliding_window", False)
    return _dense(config) | {"head_dim": config.get("head_dim", 128), "qk_norm": "head"}


def _write_qwen3(model: ModelConfig) -> dict[str, Any]:
    return {"intermediate_size": model.ffn_hidden_size, "head_dim": model.query_head_dim}


def _read_mixtral(config: HubConfig) -> dict[str, Any]:
    return (
        common_model(config)
        | grouped_queries(config)
        | {
            "sliding_window": config.get("sliding_window"),
            "moe": {
                "num_experts": config.need("num_local_experts"),
                "top_k": config.need("num_experts_per_tok"),
                "expert_ffn_hidden_size": config.need("intermediate_size"),
                "aux_loss_coefficient": config.get("router_aux_loss_coef", 0.001),
            },
        }
    )


def _write_mixtral(model: ModelConfig) -> dict[str, Any]:
    moe = _need_experts(model)
    return {
        "num_local_experts": moe.num_experts,
        "num_experts_per_tok": moe.top_k,
        "intermediate_size": moe.expert_ffn_hidden_size,
        "head_dim": model.query_head_dim,
        "sliding_window": model.sliding_window,
        "router_aux_loss_coef": moe.aux_loss_coefficient,
    }


def _read_olmoe(config: HubConfig) -> dict[str, Any]:
    config.only("clip_qkv")
    config.only("attention_bias", False)
    return (
        common_model(config)
        | {"num_kv_heads": config.get("num_key_value_heads"), "qk_norm": "full"}
        | {"moe": _softmax_experts(config, config.need("intermediate_size"))}
    )


def _write_olmoe(model: ModelConfig) -> dict[str, Any]:
    moe = _need_experts(model)
    return _softmax_hub(model) | {"intermediate_size": moe.expert_ffn_hidden_size}


def _softmax_experts(config: HubConfig, inner: int) -> dict[str, Any]:
    return {
        # Qwen3-MoE's key is `num_local_experts` in transformers 5.
        "num_experts": config.get("num_experts") or config.need("num_local_experts"),
        "top_k": config.need("num_experts_per_tok"),
        "expert_ffn_hidden_size": inner,
        "normalize_top_k": config.get("norm_topk_prob", False),
        "aux_loss_coefficient": config.get("router_aux_loss_coef", 0.001),
    }


def _softmax_hub(model: ModelConfig) -> dict[str, Any]:
    moe = _need_experts(model)
    return {
        "num_experts": moe.num_experts,
        "num_experts_per_tok": moe.top_k,
        "norm_topk_prob": moe.normalize_top_k,
        "router_aux_loss_coef": moe.aux_loss_coefficient,
    }


def _read_qwen_moe(config: HubConfig) -> dict[str, Any]:
    config.only("use_sliding_window", False)
    step, dense = config.get("decoder_sparse_step", 1), config.get("mlp_only_layers", [])
    sparse = [
        i not in dense and (i + 1) % step == 0 for i in range(config.need("num_hidden_layers"))
    ]
    moe = _softmax_experts(config, config.need("moe_intermediate_size"))
    return _dense(config) | {"moe": moe | sparse_pattern(config, sparse)}


def _write_qwen_moe(model: ModelConfig) -> dict[str, Any]:
    moe = _need_experts(model)
    dense = [i for i, sparse in enumerate(model.sparse_layers) if not sparse]
    return _softmax_hub(model) | {
        "moe_intermediate_size": moe.expert_ffn_hidden_size,
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
    moe = _need_experts(model)
    inner = moe.shared_expert_ffn_hidden_size
    return _write_qwen_moe(model) | {"shared_expert_intermediate_size": inner}


def _read_qwen3_moe(config: HubConfig) -> dict[str, Any]:
    config.only("attention_bias", False)
    return _read_qwen_moe(config) | {"qk_norm": "head"}


def _write_qwen3_moe(model: ModelConfig) -> dict[str, Any]:
    return _write_qwen_moe(model) | {"head_dim": model.query_head_dim}


def _read_deepseek(config: HubConfig) -> dict[str, Any]:
    config.only("attention_bias", False)
    config.only("moe_layer_freq", 1)
    inner = config.need("moe_intermediate_size")
    moe = {
        "num_experts": config.get("n_routed_experts") or config.need("num_local_experts"),
        "top_k": config.need("num_experts_per_tok"),
        "expert_ffn_hidden_size": inner,
        "shared_expert_ffn_hidden_size": inner * config.need("n_shared_experts"),
        "first_dense_layers": config.get("first_k_dense_replace", 0),
        "scaling_factor": config.get("routed_scaling_factor", 1.0),
        "load_balancing": "seq_aux_loss",
        "aux_loss_coefficient": config.get("aux_loss_alpha", 0.001),
    }
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
    config.only("norm_topk_prob", False, why="transformers' DeepSeek-V2 never normalises")
    config.only("topk_method", "greedy", "group_limited_greedy")
    values = _read_deepseek(config)
    values["moe"]["normalize_top_k"] = False
    if config.get("topk_method") == "group_limited_greedy":
        groups = {"num_groups": config.need("n_group"), "group_top_k": config.need("topk_group")}
        values["moe"] |= groups | {"group_score_experts": 1}
    return values


def _read_deepseek_v3(config: HubConfig) -> dict[str, Any]:
    config.only("scoring_func", "sigmoid")
    config.only("topk_method", "noaux_tc")
    config.only("rope_interleave", True)
    values = _read_deepseek(config)
    values["moe"] |= {
        "score_function": "sigmoid",
        "expert_bias": True,
        "normalize_top_k": config.get("norm_topk_prob", True),
    }
    if config.get("n_group", 1) > 1:
        groups = {"num_groups": config.need("n_group"), "group_top_k": config.need("topk_group")}
        values["moe"] |= groups | {"group_score_experts": 2}
    return values


def _write_deepseek(model: ModelConfig) -> dict[str, Any]:
    moe, mla = _need_experts(model), model.mla
    if mla is None:
        raise MisfitError("deepseek", ["model without [model.mla]"])
    shared, rest = divmod(moe.shared_expert_ffn_hidden_size, moe.expert_ffn_hidden_size)
    if rest or not shared:
        size = f"shared_expert_ffn_hidden_size = {moe.shared_expert_ffn_hidden_size}"
        raise MisfitError("deepseek", [size])
    first = model.sparse_layers.index(True)
    return mla.model_dump() | {
        "intermediate_size": model.ffn_hidden_size or moe.expert_ffn_hidden_size,
        "moe_intermediate_size": moe.expert_ffn_hidden_size,
        "n_routed_experts": moe.num_experts,
        "num_experts_per_tok": moe.top_k,
        "n_shared_experts": shared,
        "first_k_dense_replace": first,
        "routed_scaling_factor": moe.scaling_factor,
        "attention_bias": False,
    }


def _write_deepseek_v2(model: ModelConfig) -> dict[str, Any]:
    moe = _need_experts(model)
    return _write_deepseek(model) | {
        "norm_topk_prob": moe.normalize_top_k,
        "scoring_func": moe.score_function,
        "topk_method": "group_limited_greedy" if moe.num_groups else "greedy",
        "n_group": moe.num_groups,
        "topk_group": moe.group_top_k,
    }


def _write_deepseek_v3(model: ModelConfig) -> dict[str, Any]:
    moe = _need_experts(model)
    return _write_deepseek(model) | {
        "norm_topk_prob": moe.normalize_top_k,
        "scoring_func": moe.score_function,
        "topk_method": "noaux_tc",
        "n_group": moe.num_groups or 1,
        "topk_group": moe.group_top_k or 1,
        "num_nextn_predict_layers": model.mtp_layers,
        "rope_interleave": True,
    }


def _read_gpt_oss(config: HubConfig) -> dict[str, Any]:
    config.only("attention_bias", True)
    config.only("swiglu_alpha", 1.702)
    config.only("swiglu_limit", 7.0)
    layers = config.need("num_hidden_layers")
    default = ["full_attention" if i % 2 else "sliding_attention" for i in range(layers)]
    if config.get("layer_types", default) != default:
        raise ConfigError(f"{config.origin}: layer_types do not alternate sliding and full")
    moe = {
        "num_experts": config.get("num_local_experts") or config.need("num_experts"),
        "top_k": config.need("num_experts_per_tok"),
        "expert_ffn_hidden_size": config.need("intermediate_size"),
        "aux_loss_coefficient": config.get("router_aux_loss_coef", 0.001),
    }
    return (
        common_model(config)
        | grouped_queries(config)
        | {
            "linear_bias": True,
            "activation": "clamped_swiglu",
            "sliding_window": config.need("sliding_window"),
            "full_attention_interval": 2,
            "attention_sinks": True,
            "moe": moe,
        }
    )


def _write_gpt_oss(model: ModelConfig) -> dict[str, Any]:
    moe = _need_experts(model)
    types = ["full_attention" if w is None else "sliding_attention" for w in model.layer_windows]
    return {
        "num_local_experts": moe.num_experts,
        "num_experts_per_tok": moe.top_k,
        "intermediate_size": moe.expert_ffn_hidden_size,
        "head_dim": model.query_head_dim,
        "sliding_window": model.sliding_window,
        "layer_types": types,
        "attention_bias": True,
        "swiglu_limit": 7.0,
        "router_aux_loss_coef": moe.aux_loss_coefficient,
    }


def _need_experts(model: ModelConfig) -> Any:
    if model.moe is None:
        raise MisfitError("a sparse family", ["model without [model.moe]"])
    return model.moe


_MIXTRAL = Names(mlp="block_sparse_moe", gate="w1", up="w3", down="w2")
_QWEN = Names(shared="shared_expert")
_GPT_OSS = Names(router="router", fused_experts=True)


def _families() -> Iterable[Family]:
    rows = [
        ("llama", "Llama", Names(), _read_llama, _write_llama),
        ("qwen3", "Qwen3", Names(), _read_qwen3, _write_qwen3),
        ("mixtral", "Mixtral", _MIXTRAL, _read_mixtral, _write_mixtral),
        ("olmoe", "Olmoe", Names(), _read_olmoe, _write_olmoe),
        ("qwen2_moe", "Qwen2Moe", _QWEN, _read_qwen2_moe, _write_qwen2_moe),
        ("qwen3_moe", "Qwen3Moe", Names(), _read_qwen3_moe, _write_qwen3_moe),
        ("deepseek_v2", "DeepseekV2", Names(), _read_deepseek_v2, _write_deepseek_v2),
        ("deepseek_v3", "DeepseekV3", Names(), _read_deepseek_v3, _write_deepseek_v3),
        ("gpt_oss", "GptOss", _GPT_OSS, _read_gpt_oss, _write_gpt_oss),
    ]  # fmt: skip
    for model_type, stem, names, read, write in rows:
        yield Family(
            model_type=model_type,
            architecture=f"{stem}ForCausalLM",
            names=names,
            read=read,
            write=write,
            predicts=model_type == "deepseek_v3",
        )


FAMILIES: dict[str, Family] = {family.model_type: family for family in _families()}


def family_of(config: HubConfig) -> Family:
    """Return the family that a `config.json` names.

    Raises:
        ConfigError: It is none of those that can be converted.
    """
    family = FAMILIES.get(config.need("model_type"))
    if family is None:
        raise ConfigError(
            f"{config.origin}: model_type = {config.need('model_type')!r}: there are"
            f" {', '.join(FAMILIES)}"
        )
    return family


def family_for(model: ModelConfig, wanted: str | None = None) -> tuple[Family, dict[str, Any]]:
    """Return the family that computes what a model computes, and its `config.json`.

    Args:
        model: Our model.
        wanted: The family to use; none: the first that fits.

    Raises:
        ConfigError: The wanted family, or each of them, lacks something; names it for the
            nearest.
    """
    if wanted is not None and wanted not in FAMILIES:
        raise ConfigError(f"--family {wanted}: there are {', '.join(FAMILIES)}")
    misfits = []
    for family in [FAMILIES[wanted]] if wanted else FAMILIES.values():
        try:
            return family, family.config(model)
        except ConfigError as error:
            misfits.append(error)
    nearest = min(misfits, key=lambda e: len(e.differences) if isinstance(e, MisfitError) else 99)
    raise ConfigError(f"transformers has no such model; the nearest: {nearest}")
