"""Rotary embedding in `config.json`, read as transformers 5 reads it.

Sources: `modeling_rope_utils.py` of transformers 5.24 (`convert_rope_params_to_dict`,
`standardize_rope_params`, `_compute_yarn_parameters`, `_compute_llama3_parameters`) and 4.57.
"""

import math
from typing import Any

from moe.config.model import ModelConfig, RopeConfig
from moe.convert.hub_config import HubConfig
from moe.errors import ConfigError

_YARN_DEFAULTS = {
    "beta_fast": None, "beta_slow": None, "truncate": True, "mscale": None, "mscale_all_dim": None,
    "attention_factor": None,
}  # fmt: skip


def rope_model(
    config: HubConfig, *, is_partial: bool = False, scales_softmax: bool = False
) -> dict[str, Any]:
    """Return the `[model.rope]` values of a `config.json`.

    Args:
        config: All of it, with the defaults of its class.
        is_partial: Whether the family can rotate a part of each head.
        scales_softmax: Whether `mscale_all_dim` scales the softmax (latent attention).
    """
    rope = _rope_table(config)
    kind = _kind(rope)
    theta = rope if "rope_theta" in rope.values else config
    values: dict[str, Any] = {"theta": theta.positive("rope_theta")}
    if is_partial:
        values["fraction"] = _rotated_fraction(config, rope)
    else:
        for stated in (rope, config):
            why = "this family rotates whole heads"
            stated.only("partial_rotary_factor", None, 1, why=why)
    if kind == "default":
        return values
    values |= {
        "scaling": kind,
        "factor": rope.number("factor"),
        "original_max_seq_len": _original_length(config, rope),
    }
    if kind == "yarn":
        return values | _yarn_model(rope.with_defaults(_YARN_DEFAULTS))
    if scales_softmax:
        why = "with llama3 scaling it changes the softmax alone"
        rope.only("mscale_all_dim", None, 0, why=why)
    return values | {
        "low_frequency_factor": rope.number("low_freq_factor"),
        "high_frequency_factor": rope.number("high_freq_factor"),
    }


def check_rotated(config: HubConfig, model: ModelConfig) -> None:
    """Refuse an odd number of rotated dimensions, which no class makes pairs of.

    Raises:
        ConfigError: Names the number and the keys.
    """
    if model.mla is None:
        rotated, key = int(model.query_head_dim * model.rope.fraction), "head_dim"
    else:
        rotated, key = model.mla.qk_rope_head_dim, "qk_rope_head_dim"
    if rotated % 2:
        raise ConfigError(
            f"{config.origin}: {key} (or partial_rotary_factor) rotates {rotated} dimensions of a"
            " head: rotary embedding turns pairs, so give an even number"
        )


def _rope_table(config: HubConfig) -> HubConfig:
    """Return the table that counts: `rope_scaling`, then `rope_parameters`, then the class's."""
    origin = f"{config.origin}: rope"
    own = config.defaults.get("rope_parameters")
    stated = config.table("rope_scaling")
    if not stated and config.values.get("rope_parameters") is not None:
        return HubConfig(origin, config.table("rope_parameters") or {})
    if not stated and own and "rope_scaling" in config.values:
        major = config.transformers_major
        if major is None or major < 5:
            raise ConfigError(
                f"{config.origin}: rope_scaling = null is no scaling to transformers 4 and"
                f" {own['rope_type']} x{own['factor']:g} to 5: write"
                ' {"rope_type": "default"}, or the table'
            )
    return HubConfig(origin, stated or own or {})


def _kind(rope: HubConfig) -> str:
    kinds = [rope.text(key) for key in ("rope_type", "type") if key in rope.values]
    if len(set(kinds)) > 1:
        raise ConfigError(f"{rope.origin}: rope_type = {kinds[0]!r}, but type = {kinds[1]!r}")
    kind = kinds[0] if kinds else "default"
    if kind not in {"default", "llama3", "yarn"} or any(
        isinstance(value, dict) for value in rope.values.values()
    ):
        raise ConfigError(
            f"{rope.origin}: rope_type = {kind[:60]!r} cannot be converted: there are default,"
            " llama3 and yarn, one for all layers"
        )
    return kind


def _rotated_fraction(config: HubConfig, rope: HubConfig) -> float:
    if "partial_rotary_factor" in rope.values:
        return rope.number("partial_rotary_factor")
    fraction = config.number_or_null("partial_rotary_factor")
    dims = config.integer_or_null("rotary_dim") if "rotary_dim" in config.defaults else None
    if fraction is None and dims is not None:
        return dims / config.integer("head_dim")
    return 1.0 if fraction is None else fraction


def _original_length(config: HubConfig, rope: HubConfig) -> int:
    """Return the length before the extension; a key beside the table counts for transformers 5."""
    key = "original_max_position_embeddings"
    inside = rope.integer(key) if key in rope.values else config.integer("max_position_embeddings")
    beside = config.integer(key) if key in config.values else inside
    if beside != inside and (config.transformers_major or 4) < 5:
        raise ConfigError(
            f"{config.origin}: {key} = {beside} counts for transformers 5, {inside} for 4: write"
            f" it into rope_scaling alone"
        )
    return beside


def _yarn_model(rope: HubConfig) -> dict[str, Any]:
    mscale, all_dim = (rope.number_or_null(key) or 0.0 for key in ("mscale", "mscale_all_dim"))
    attention = rope.number_or_null("attention_factor")
    if attention is None and bool(mscale) != bool(all_dim):
        raise ConfigError(f"{rope.origin}: mscale and mscale_all_dim go together")
    return {
        "mscale": (mscale or 1.0) if attention is None else _mscale_of(rope, attention, all_dim),
        "mscale_all_dim": all_dim,
        "beta_fast": rope.number_or_null("beta_fast") or 32.0,
        "beta_slow": rope.number_or_null("beta_slow") or 1.0,
        "round_correction_range": rope.flag("truncate"),
    }


def _mscale_of(rope: HubConfig, attention: float, all_dim: float) -> float:
    """Return the `mscale` that gives an attention factor."""
    factor = rope.number("factor")
    wanted = attention * _yarn_scale(factor, all_dim)
    if factor > 1:
        return (wanted - 1) / (0.1 * math.log(factor))
    rope.only("attention_factor", 1, why="with factor 1 YaRN here scales by 1")
    return 1.0


def _yarn_scale(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def rope_hub(rope: RopeConfig) -> dict[str, Any]:
    """Return the `config.json` values of rotary embedding, which both versions read."""
    return {"rope_theta": rope.theta, "rope_scaling": _scaling_hub(rope)}


def _scaling_hub(rope: RopeConfig) -> dict[str, Any] | None:
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
    if rope.mscale and rope.mscale_all_dim:
        return values | {"mscale": rope.mscale, "mscale_all_dim": rope.mscale_all_dim}
    if rope.mscale != 1 or rope.mscale_all_dim:
        both, all_dim = (_yarn_scale(rope.factor, m) for m in (rope.mscale, rope.mscale_all_dim))
        values |= {"attention_factor": both / all_dim, "mscale_all_dim": rope.mscale_all_dim}
    return values
