"""Reading and writing Hugging Face's `config.json`: what all families have in common.

Keys as in transformers 4.57 and 5; what our models cannot express is refused by key and value.
"""

from typing import Any

from moe.config.model import ModelConfig, RopeConfig
from moe.errors import ConfigError


class HubConfig:
    """The values of a `config.json`, asked for by key."""

    def __init__(self, origin: str, values: dict[str, Any]) -> None:
        self.origin, self.values = origin, values

    def need(self, key: str) -> Any:
        """Return a value that must be there.

        Raises:
            ConfigError: It is missing or null.
        """
        value = self.values.get(key)
        if value is None:
            raise ConfigError(f"{self.origin}: {key} is missing")
        return value

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value, or the default where it is missing or null."""
        value = self.values.get(key)
        return default if value is None else value

    def only(self, key: str, *allowed: Any, why: str = "no equivalent here") -> None:
        """Refuse a value outside `allowed` (a missing or null one passes).

        Raises:
            ConfigError: Names key, value and reason.
        """
        value = self.values.get(key)
        if value is not None and value not in allowed:
            raise ConfigError(f"{self.origin}: {key} = {value!r} cannot be converted: {why}")


def common_model(config: HubConfig, *, rotated: float | None = None) -> dict[str, Any]:
    """Return the `[model]` values that every family states alike.

    `rotated` is the fraction of a head that the family rotates by default; none: it
    always rotates entire heads.
    """
    config.only("hidden_act", "silu", why="feed-forward networks here are SwiGLU")
    values = {
        "num_layers": config.need("num_hidden_layers"),
        "hidden_size": config.need("hidden_size"),
        "num_heads": config.need("num_attention_heads"),
        "vocab_size": config.need("vocab_size"),
        "max_seq_len": config.need("max_position_embeddings"),
        "norm_epsilon": config.need("rms_norm_eps"),
        "tie_embeddings": config.get("tie_word_embeddings", False),
        "init_std": config.get("initializer_range", 0.02),
        "rope": _rope_model(config, rotated),
    }
    return values


def grouped_queries(config: HubConfig) -> dict[str, Any]:
    """Return the values of grouped-query attention."""
    return {
        "num_kv_heads": config.get("num_key_value_heads"),
        "head_dim": config.get("head_dim"),
    }


def _rope_model(config: HubConfig, rotated: float | None) -> dict[str, Any]:
    """Read `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (4)."""
    stated = config.get("rope_parameters") or config.get("rope_scaling") or {}
    rope = HubConfig(f"{config.origin}: rope", stated)
    kind = rope.get("rope_type", rope.get("type", "default"))
    values = {"theta": rope.get("rope_theta", config.get("rope_theta", 10_000.0))}
    if rotated is None:
        for stated in (rope, config):
            stated.only("partial_rotary_factor", 1, why="this family rotates whole heads")
    else:
        default = config.get("partial_rotary_factor", rotated)
        values["fraction"] = rope.get("partial_rotary_factor", default)
    if kind == "default":
        return values
    if kind not in {"llama3", "yarn"}:
        raise ConfigError(
            f"{rope.origin}: rope_type = {kind!r} cannot be converted: there are default, llama3"
            " and yarn"
        )
    original = rope.get(
        "original_max_position_embeddings", config.get("original_max_position_embeddings")
    )
    values |= {
        "scaling": kind,
        "factor": rope.need("factor"),
        "original_max_seq_len": original or config.need("max_position_embeddings"),
    }
    if kind == "llama3":
        return values | {
            "low_frequency_factor": rope.need("low_freq_factor"),
            "high_frequency_factor": rope.need("high_freq_factor"),
        }
    return values | _yarn_model(rope)


def _yarn_model(rope: HubConfig) -> dict[str, Any]:
    rope.only("attention_factor", why="YaRN's scale here follows from factor and mscale")
    mscale, all_dim = rope.get("mscale", 0.0), rope.get("mscale_all_dim", 0.0)
    if bool(mscale) != bool(all_dim):
        raise ConfigError(f"{rope.origin}: mscale and mscale_all_dim go together")
    return {
        "mscale": mscale or 1.0,
        "mscale_all_dim": all_dim,
        "beta_fast": rope.get("beta_fast", 32.0),
        "beta_slow": rope.get("beta_slow", 1.0),
        "round_correction_range": rope.get("truncate", True),
    }


def common_hub(model: ModelConfig) -> dict[str, Any]:
    """Return the `config.json` values that every family states alike."""
    return {
        "num_hidden_layers": model.num_layers,
        "hidden_size": model.hidden_size,
        "num_attention_heads": model.num_heads,
        "num_key_value_heads": model.kv_heads,
        "vocab_size": model.vocab_size,
        "max_position_embeddings": model.max_seq_len,
        "rms_norm_eps": model.norm_epsilon,
        "tie_word_embeddings": model.tie_embeddings,
        "initializer_range": model.init_std,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "rope_theta": model.rope.theta,
        "rope_scaling": _rope_hub(model.rope),
    }


def _rope_hub(rope: RopeConfig) -> dict[str, Any] | None:
    if rope.scaling == "none":
        return None
    values: dict[str, Any] = {
        "rope_type": rope.scaling,
        "factor": rope.factor,
        "original_max_position_embeddings": rope.original_max_seq_len,
    }
    if rope.scaling == "llama3":
        return values | {
            "low_freq_factor": rope.low_frequency_factor,
            "high_freq_factor": rope.high_frequency_factor,
        }
    values |= {
        "beta_fast": rope.beta_fast,
        "beta_slow": rope.beta_slow,
        "truncate": rope.round_correction_range,
    }
    if rope.mscale_all_dim:
        values |= {"mscale": rope.mscale, "mscale_all_dim": rope.mscale_all_dim}
    return values


def sparse_pattern(config: HubConfig, sparse: list[bool]) -> dict[str, int]:
    """Return `first_dense_layers` and `layer_interval` of a list of sparse layers.

    Raises:
        ConfigError: No such pair gives the list.
    """
    if not any(sparse):
        raise ConfigError(f"{config.origin}: no layer has routed experts: a dense model")
    first = sparse.index(True)
    gap = sparse[first + 1 :]
    interval = gap.index(True) + 1 if True in gap else max(1, len(gap) + 1)
    pattern = [i >= first and (i - first) % interval == 0 for i in range(len(sparse))]
    if pattern != sparse:
        raise ConfigError(
            f"{config.origin}: decoder_sparse_step and mlp_only_layers give a pattern of sparse"
            " layers that does not repeat: it cannot be converted"
        )
    return {"first_dense_layers": first, "layer_interval": interval}
