"""What `config.json` says layer by layer: lists as `[model]` keys, and windows of attention."""

from collections.abc import Callable
from typing import Any

from moe.config.model import ModelConfig
from moe.convert.hub_config import HubConfig
from moe.errors import ConfigError

SLIDING, FULL = "sliding_attention", "full_attention"
SPARSE, DENSE = "sparse", "dense"
LayersOf = Callable[[HubConfig], list[str]]
"""What a class makes of a configuration that lists no layers."""


def listed_layers(config: HubConfig, key: str, default: LayersOf, known: set[str]) -> list[str]:
    """Return what a list says of each layer, or the class's default where it is null.

    Raises:
        ConfigError: It is no list of as many strings as layers, or one of them is not `known`.
    """
    types = config.items(key, str)
    if types is None:
        return default(config)
    if len(types) != config.num_layers:
        raise ConfigError(
            f"{config.origin}: {key} has {len(types)} entries for {config.num_layers} layers"
        )
    if unknown := {*types} - known:
        raise ConfigError(
            f"{config.origin}: {key} has {min(unknown)[:60]!r}: of these only"
            f" {' and '.join(sorted(known))} can be converted"
        )
    return types


def window_model(config: HubConfig, default: LayersOf) -> dict[str, Any]:
    """Return the `[model]` values of layers that see `sliding_window` tokens or all.

    Raises:
        ConfigError: `layer_types` is wrong, or no interval gives the pattern.
    """
    types = listed_layers(config, "layer_types", default, {SLIDING, FULL})
    if SLIDING not in types:
        return {}
    window = config.integer("sliding_window")
    if FULL not in types:
        return {"sliding_window": window}
    interval = types.index(FULL) + 1
    if any((kind == FULL) != ((i + 1) % interval == 0) for i, kind in enumerate(types)):
        raise ConfigError(
            f"{config.origin}: layer_types (or max_window_layers) give no repeated pattern of"
            " sliding layers and one full one: they cannot be converted"
        )
    return {"sliding_window": window, "full_attention_interval": interval}


def switched_windows(config: HubConfig, default: LayersOf) -> dict[str, Any]:
    """Return the values where `use_sliding_window` must be said for any window (Qwen)."""
    return window_model(config, default) if config.flag("use_sliding_window") else {}


def check_layer_lists(config: HubConfig, model: ModelConfig) -> None:
    """Refuse a list of layers that other keys contradict: most classes go by those, unsaid.

    Raises:
        ConfigError: Names the first layer of which they differ.
    """
    for key, made, known in (
        ("layer_types", layer_types_hub(model), {SLIDING, FULL}),
        ("mlp_layer_types", mlp_layer_types_hub(model), {SPARSE, DENSE}),
    ):
        listed = made
        if config.values.get(key) is not None:
            listed = listed_layers(config, key, full_layers, known)
        for i, (stated, other) in enumerate(zip(listed, made, strict=True)):
            if stated != other:
                raise ConfigError(
                    f"{config.origin}: {key} has {stated} for layer {i}, which other keys make"
                    f" {other}: make them agree"
                )


def full_layers(config: HubConfig) -> list[str]:
    """Return the types of layers without windows."""
    return [FULL] * config.num_layers


def late_windows(config: HubConfig) -> list[str]:
    """Return the layers' types as Qwen's and dots' classes have them: the last ones slide."""
    first = config.integer("max_window_layers", least=0)
    slides = config.value("sliding_window") is not None
    return [SLIDING if slides and i >= first else FULL for i in range(config.num_layers)]


def layer_types_hub(model: ModelConfig) -> list[str]:
    """Return `layer_types` of a model."""
    return [FULL if window is None else SLIDING for window in model.layer_windows]


def mlp_layer_types_hub(model: ModelConfig) -> list[str]:
    """Return `mlp_layer_types` of a model."""
    return [SPARSE if sparse else DENSE for sparse in model.sparse_layers]
