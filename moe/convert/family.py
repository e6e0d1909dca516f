"""One family of Hugging Face models: what it can express, proven by reading it back."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from moe.config.explain import explain
from moe.config.model import ModelConfig, MoeConfig
from moe.convert.class_defaults import CLASS_DEFAULTS
from moe.convert.class_kinds import check_kinds
from moe.convert.hub_config import HubConfig, common_hub
from moe.convert.hub_layers import check_layer_lists
from moe.convert.hub_rope import check_rotated, rope_hub
from moe.convert.tensor_map import Names
from moe.errors import ConfigError

ONLY_TRAINING = {
    "preset": None, "init_std": 0.02, "mtp_loss_coefficient": 0.1,
}  # fmt: skip
ONLY_TRAINING_MOE = {
    "load_balancing": "none", "aux_loss_coefficient": 0.0, "z_loss_coefficient": 0.0,
    "expert_bias_update_rate": 1e-3, "capacity_factor": None, "token_drop_policy": "probs",
    "router_dtype": "fp32", "forced_balance": False,
}  # fmt: skip
"""Keys that do not change what a trained, dropless model computes; they are not exported."""


class MisfitError(ConfigError):
    """A family computes something other than the model; `differences` lists what."""

    def __init__(self, family: str, differences: list[str]) -> None:
        super().__init__(f"{family} has no {', '.join(differences)}")
        self.differences = differences


@dataclass(frozen=True, kw_only=True)
class Family:
    """One `model_type` of transformers."""

    model_type: str
    architecture: str
    """The class in transformers, without `ForCausalLM`."""
    names: Names = Names()
    read: Callable[[HubConfig], dict[str, Any]]
    """`config.json`, with its class's defaults, to `[model]` values without multi-token
    prediction."""
    write: Callable[[ModelConfig], dict[str, Any]]
    """The values of `config.json` beside the common ones."""
    fp32_endings: tuple[str, ...] = ("e_score_correction_bias",)
    """Endings of the tensors that stay as they are stored where a model is written in 16 bits: its
    class keeps them in FP32."""
    predicts: bool = False
    """Whether multi-token-prediction layers are part of it."""

    def model(self, config: HubConfig, mtp_layers: int = 0) -> ModelConfig:
        """Return the model that a `config.json` describes.

        Raises:
            ConfigError: A key is missing, or cannot be expressed here.
        """
        config = config.with_defaults(CLASS_DEFAULTS[self.model_type])
        check_kinds(config, self.model_type)
        try:
            values = self.read(config) | {"mtp_layers": mtp_layers}
            model = ModelConfig.model_validate(values)
        except ValidationError as error:
            fault = explain(error, ModelConfig)
            if config.assumed:
                taken = ", ".join(f"{key} = {value}" for key, value in config.assumed.items())
                fault += f" (not stated, so as transformers' class has it: {taken})"
            raise ConfigError(f"{config.origin}: {fault}") from None
        check_layer_lists(config, model)
        check_rotated(config, model)
        return model

    def config(self, model: ModelConfig) -> dict[str, Any]:
        """Return the `config.json` of a model.

        Raises:
            ConfigError: This family computes something else; names what.
        """
        values = {
            "architectures": [f"{self.architecture}ForCausalLM"],
            "model_type": self.model_type,
            **common_hub(model),
            **rope_hub(model.rope),
            **self.write(model),
        }
        mtp_layers = model.mtp_layers if self.predicts else 0
        back = self.model(HubConfig(self.model_type, values), mtp_layers)
        wrong = model_differences(functional_config(model), functional_config(back))
        if wrong:
            raise MisfitError(self.model_type, wrong)
        return values


def functional_config(model: ModelConfig) -> dict[str, Any]:
    """Return what a trained model's output depends on, derived values filled in."""
    resolved: dict[str, Any] = {"num_kv_heads": model.kv_heads, **ONLY_TRAINING}
    if model.mla is None:
        resolved["head_dim"] = model.query_head_dim
    if all(model.sparse_layers):
        resolved["ffn_hidden_size"] = None
    values = model.model_copy(update=resolved).model_dump()
    if model.moe is not None:
        values["moe"] |= ONLY_TRAINING_MOE
        values["moe"]["group_score_experts"] = (
            model.moe.group_score_size if model.moe.num_groups else None
        )
        values["moe"]["first_dense_layers"] = values["moe"]["layer_interval"] = None
        values["sparse_layers"] = model.sparse_layers
    if model.mla is not None:
        values["mla"]["norm_epsilon"] = model.latent_norm_epsilon
    if model.rope.scaling == "none":
        values["rope"] = {"theta": model.rope.theta, "fraction": model.rope.fraction}
    return values


def model_differences(one: dict[str, Any], other: dict[str, Any], prefix: str = "") -> list[str]:
    """Return what differs between two results of `functional_config`, key by key."""
    differences = []
    for key, value in one.items():
        theirs = other.get(key)
        if isinstance(value, dict) and isinstance(theirs, dict):
            differences += model_differences(value, theirs, f"{prefix}{key}.")
        elif not _is_same(value, theirs):
            is_table = isinstance(value, dict)
            differences.append(
                f"[model.{prefix}{key}]" if is_table else f"{prefix}{key} = {value!r}"
            )
    return differences


def _is_same(one: Any, other: Any) -> bool:
    """Whether two values are equal, but for the rounding of an attention factor to `mscale`."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-12)
    return bool(one == other)


def need_experts(model: ModelConfig) -> MoeConfig:
    """Return a model's experts.

    Raises:
        MisfitError: It is dense.
    """
    if model.moe is None:
        raise MisfitError("a sparse family", ["model without [model.moe]"])
    return model.moe
