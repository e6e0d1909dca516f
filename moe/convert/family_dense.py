"""Dense families of Hugging Face: their configuration as ours, and ours as theirs.

Sources: transformers 4.57 and 5 (`configuration_*.py`, `modeling_*.py`), read key by key.
"""

from typing import Any

from moe.config.model import ModelConfig
from moe.convert.family import Family
from moe.convert.hub_config import HubConfig, check_hidden_size, common_model, grouped_queries
from moe.convert.hub_layers import late_windows, layer_types_hub, switched_windows
from moe.convert.hub_rope import rope_model
from moe.errors import ConfigError


def attention_model(config: HubConfig, *, is_partial: bool = False) -> dict[str, Any]:
    """Return the `[model]` values of a model with grouped-query attention."""
    rope = rope_model(config, is_partial=is_partial)
    return common_model(config) | grouped_queries(config) | {"rope": rope}


def dense_model(config: HubConfig, *, is_partial: bool = False) -> dict[str, Any]:
    """Return the `[model]` values of grouped-query attention and a gated network."""
    inner = config.integer("intermediate_size")
    return attention_model(config, is_partial=is_partial) | {"ffn_hidden_size": inner}


def _read_llama(config: HubConfig) -> dict[str, Any]:
    check_hidden_size(config)
    if config.number("initializer_range") > 1:
        raise ConfigError(
            f"{config.origin}: initializer_range = {config.number('initializer_range'):g} is more"
            " than 1: transformers refuses it in this family"
        )
    biased = config.flag("attention_bias")
    if biased != config.flag("mlp_bias"):
        raise ConfigError(
            f"{config.origin}: attention_bias and mlp_bias differ: layers here have both or none"
        )
    return dense_model(config) | {"linear_bias": biased}


def _write_llama(model: ModelConfig) -> dict[str, Any]:
    return {
        "intermediate_size": model.ffn_hidden_size,
        "head_dim": model.query_head_dim,
        "attention_bias": model.linear_bias,
        "mlp_bias": model.linear_bias,
    }


def _read_qwen3(config: HubConfig) -> dict[str, Any]:
    config.only("attention_bias", False)
    windows = switched_windows(config, late_windows)
    return dense_model(config) | windows | {"qk_norm": "head"}


def _write_qwen(model: ModelConfig) -> dict[str, Any]:
    return {
        "intermediate_size": model.ffn_hidden_size,
        "head_dim": model.query_head_dim,
    } | switched_windows_hub(model)


def switched_windows_hub(model: ModelConfig) -> dict[str, Any]:
    """Return the windows of Qwen's families."""
    windows = {"use_sliding_window": model.sliding_window is not None}
    if model.sliding_window is None:
        return windows
    types = {"sliding_window": model.sliding_window, "layer_types": layer_types_hub(model)}
    return windows | types


def _read_mistral(config: HubConfig) -> dict[str, Any]:
    return dense_model(config) | {"sliding_window": config.integer_or_null("sliding_window")}


def _write_mistral(model: ModelConfig) -> dict[str, Any]:
    return {
        "intermediate_size": model.ffn_hidden_size,
        "head_dim": model.query_head_dim,
        "sliding_window": model.sliding_window,
    }


def _read_qwen2(config: HubConfig) -> dict[str, Any]:
    windows = switched_windows(config, late_windows)
    return dense_model(config) | windows | {"qkv_bias": True}


DENSE_FAMILIES = (
    Family(model_type="llama", architecture="Llama", read=_read_llama, write=_write_llama),
    Family(model_type="mistral", architecture="Mistral", read=_read_mistral, write=_write_mistral),
    Family(model_type="qwen2", architecture="Qwen2", read=_read_qwen2, write=_write_qwen),
    Family(model_type="qwen3", architecture="Qwen3", read=_read_qwen3, write=_write_qwen),
)
