"""How Megatron-Bridge builds a model: its configuration names a class, and a function of layers.

Both are only names here, so a model is taken where they are known to add nothing to what the
other keys say. `AutoBridge` sets them by family (`megatron/bridge/models/*/*_bridge.py`).
"""

import re
from typing import Any, Literal

from moe.convert.megatron.settings import MegatronSettings
from moe.errors import ConfigError

_BRIDGE = "megatron.bridge.models."
_CORE = "megatron.core.models.gpt.gpt_layer_specs."
_MODULES = (
    f"{_BRIDGE}gpt_provider.",
    f"{_BRIDGE}gpt.gpt_builder.",
    "megatron.training.models.gpt.",
)
_GPT = re.compile(
    r"megatron\.bridge\.models\.(gpt_provider\.GPTModelProvider|mla_provider\.MLAModelProvider"
    r"|gpt\.gpt_builder\.GPTModelConfig|gpt\.model_config\.BridgeGPTModelConfig"
    r"|(deepseek\.deepseek|glm\.glm45|gpt_oss\.gpt_oss|kimi\.kimi|llama\.llama|mistral\.mistral"
    r"|olmoe\.olmoe|qwen\.qwen)_provider\.(?!Llama4|Qwen3Next)\w*Provider\w*)"
    r"|megatron\.training\.models\.gpt\.GPTModelConfig",
    re.ASCII,
)
"""Classes that build a GPT model of the other keys; those of families are defaults of such keys,
which versions before 0.4 named (others, as Gemma's, compute more)."""
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
    if owner is not None and not (isinstance(owner, str) and _GPT.fullmatch(owner)):
        raise _only_named(settings, "_target_", owner)
    layers = settings.values.get("transformer_layer_spec")
    known = isinstance(layers, str) and layers in _BY_THE_OTHER_KEYS | _FULL_QK_NORM
    if layers is not None and not known:
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
