"""Families of Hugging Face with DeepSeek-V3's experts behind grouped-query attention.

Sources: transformers 4.57 and 5 (`configuration_*.py`, `modeling_*.py`), read key by key.
"""

from typing import Any

from moe.config.model import ModelConfig
from moe.convert.family import Family
from moe.convert.family_deepseek import (
    DEEPSEEK_NAMES,
    ROUTER_TENSORS,
    dense_first,
    sigmoid_experts,
    write_experts,
    write_groups,
)
from moe.convert.family_dense import attention_model, dense_model
from moe.convert.hub_config import HubConfig
from moe.convert.hub_layers import late_windows, layer_types_hub, window_model


def _read_glm4_moe(config: HubConfig) -> dict[str, Any]:
    return dense_model(config, is_partial=True) | {
        "qkv_bias": config.flag("attention_bias"),
        "qk_norm": "head" if config.flag("use_qk_norm") else "none",
        "moe": sigmoid_experts(config) | dense_first(config),
    }


def _write_glm4_moe(model: ModelConfig) -> dict[str, Any]:
    return (
        write_experts("glm4_moe", model)
        | write_groups(model)
        | {
            "head_dim": model.query_head_dim,
            "attention_bias": model.qkv_bias,
            "use_qk_norm": model.qk_norm == "head",
            "partial_rotary_factor": model.rope.fraction,
        }
    )


def _read_solar_open(config: HubConfig) -> dict[str, Any]:
    """Every layer is sparse, whatever `first_k_dense_replace` says."""
    return attention_model(config) | {
        "qkv_bias": config.flag("attention_bias"),
        "moe": sigmoid_experts(config),
    }


def _write_solar_open(model: ModelConfig) -> dict[str, Any]:
    return (
        write_experts("solar_open", model)
        | write_groups(model)
        | {"head_dim": model.query_head_dim, "attention_bias": model.qkv_bias}
    )


def _read_dots1(config: HubConfig) -> dict[str, Any]:
    config.only("attention_bias", False)
    return (
        dense_model(config)
        | window_model(config, late_windows)
        | {"qk_norm": "head", "moe": sigmoid_experts(config) | dense_first(config)}
    )


def _write_dots1(model: ModelConfig) -> dict[str, Any]:
    return (
        write_experts("dots1", model)
        | write_groups(model)
        | {
            "head_dim": model.query_head_dim,
            "attention_bias": False,
            "sliding_window": model.sliding_window,
            "layer_types": layer_types_hub(model),
        }
    )


GLM_FAMILIES = (
    Family(
        model_type="glm4_moe",
        architecture="Glm4Moe",
        names=DEEPSEEK_NAMES,
        fp32_endings=ROUTER_TENSORS,
        read=_read_glm4_moe,
        write=_write_glm4_moe,
        predicts=True,
    ),
    Family(
        model_type="solar_open",
        architecture="SolarOpen",
        names=DEEPSEEK_NAMES,
        fp32_endings=ROUTER_TENSORS,
        read=_read_solar_open,
        write=_write_solar_open,
    ),
    Family(
        model_type="dots1",
        architecture="Dots1",
        names=DEEPSEEK_NAMES,
        fp32_endings=ROUTER_TENSORS,
        read=_read_dots1,
        write=_write_dots1,
    ),
)
