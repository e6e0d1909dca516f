"""How Megatron-Bridge builds a model: its configuration names a class, and a function of layers.

Both are only names here, so a model is taken where they are known to add nothing to what the
other keys say. `AutoBridge` sets them by family (`megatron/bridge/models/*/*_bridge.py`).
"""

from typing import Any, Literal

from moe.convert.megatron.settings import MegatronSettings
from moe.errors import ConfigError

_PACKAGE = "megatron."
_BRIDGE = "megatron.bridge.models."
_CORE = "megatron.core.models.gpt.gpt_layer_specs."
_MODULES = (
    f"{_BRIDGE}gpt_provider.",
    f"{_BRIDGE}gpt.gpt_builder.",
    "megatron.training.models.gpt.",
)
_BY_THE_OTHER_KEYS = {
    *(
        f"{module}{function}"
        for module in _MODULES
        for function in ("default_layer_spec", "transformer_engine_layer_spec", "local_layer_spec")
    ),
    *(
        f"{_CORE}get_gpt_{layers}_spec"
        for layers in ("decoder_block", "layer_local", "layer_with_transformer_engine")
    ),
}
_FULL_QK_NORM = {
    f"{_BRIDGE}olmoe.olmoe_provider.olmoe_layer_spec",
    f"{_BRIDGE}minimax_m2.minimax_m2_provider.minimax_m2_layer_spec",
}
"""Norms of queries and keys over all heads together."""


def refuse_unknown_classes(settings: MegatronSettings) -> None:
    """Refuse a model of a class, or of layers, that the other keys do not describe.

    Raises:
        ConfigError: Names key and value.
    """
    owner = settings.values.get("_target_")
    if owner is not None and not str(owner).startswith(_PACKAGE):
        raise _only_named(settings, "_target_", owner)
    layers = settings.values.get("transformer_layer_spec")
    if layers is not None and layers not in _BY_THE_OTHER_KEYS | _FULL_QK_NORM:
        raise _only_named(settings, "transformer_layer_spec", layers)


def qk_norm(settings: MegatronSettings) -> Literal["none", "head", "full"]:
    """Return over what queries and keys are normalized."""
    if settings.values.get("transformer_layer_spec") in _FULL_QK_NORM:
        return "full"
    return "head" if settings.flag("qk_layernorm") else "none"


def _only_named(settings: MegatronSettings, key: str, value: Any) -> ConfigError:
    return ConfigError(
        f"{settings.origin}: {key} = {str(value)[:120]!r} cannot be converted: it is code that the"
        " checkpoint only names: give the model with --model FILE.toml"
    )
