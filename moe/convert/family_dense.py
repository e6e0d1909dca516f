"""Dense families of Hugging Face: their configuration as ours, and ours as theirs.

Sources: transformers 4.57 and 5 (`configuration_*.py`, `modeling_*.py`), read key by key.
"""

from typing import Any

from moe.config.model import ModelConfig
from moe.convert.family import Family
from moe.convert.hub_config import HubConfig, common_model, grouped_queries
from moe.errors import ConfigError


def dense_model(config: HubConfig, *, rotated: float | None = None) -> dict[str, Any]:
    """Return the `[model]` values of grouped-query attention and a gated network."""
    return (
        common_model(config, rotated=rotated)
        | grouped_queries(config)
        | {"ffn_hidden_size": config.need("intermediate_size")}
    )


def _read_llama(config: HubConfig) -> dict[str, Any]:
    biased = config.get("attention_bias", False)
    if biased != config.get("mlp_bias", False):
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
    config.only("use_sliding_window", False)
    return dense_model(config) | {"head_dim": config.get("head_dim", 128), "qk_norm": "head"}


def _write_qwen3(model: ModelConfig) -> dict[str, Any]:
    return {"intermediate_size": model.ffn_hidden_size, "head_dim": model.query_head_dim}


def _read_mistral(config: HubConfig) -> dict[str, Any]:
    return dense_model(config) | {"sliding_window": config.get("sliding_window")}


def _write_mistral(model: ModelConfig) -> dict[str, Any]:
    return _write_qwen3(model) | {"sliding_window": model.sliding_window}


def _read_qwen2(config: HubConfig) -> dict[str, Any]:
    config.only("use_sliding_window", False)
    return dense_model(config) | {"head_dim": None, "qkv_bias": True}


def _write_qwen2(model: ModelConfig) -> dict[str, Any]:
    return {"intermediate_size": model.ffn_hidden_size, "use_sliding_window": False}


DENSE_FAMILIES = (
    Family(model_type="llama", architecture="Llama", read=_read_llama, write=_write_llama),
    Family(model_type="mistral", architecture="Mistral", read=_read_mistral, write=_write_mistral),
    Family(model_type="qwen2", architecture="Qwen2", read=_read_qwen2, write=_write_qwen2),
    Family(model_type="qwen3", architecture="Qwen3", read=_read_qwen3, write=_write_qwen3),
)
