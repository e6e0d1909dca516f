"""Hugging Face's model families by name, and which of them computes what a model computes."""

from typing import Any

from moe.config.model import ModelConfig
from moe.config.presets.catalog import why_not
from moe.convert.family import Family, MisfitError
from moe.convert.family_deepseek import DEEPSEEK_FAMILIES
from moe.convert.family_dense import DENSE_FAMILIES
from moe.convert.family_glm import GLM_FAMILIES
from moe.convert.family_sparse import SPARSE_FAMILIES
from moe.convert.hub_config import HubConfig
from moe.errors import ConfigError

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (*DENSE_FAMILIES, *SPARSE_FAMILIES, *DEEPSEEK_FAMILIES, *GLM_FAMILIES)
}
ALIASES = {"kimi_k2": "deepseek_v3"}
"""Names in a `config.json` for what another family computes, tensor by tensor."""


def family_of(config: HubConfig) -> Family:
    """Return the family that a `config.json` names.

    Raises:
        ConfigError: It is none of those that can be converted.
    """
    name = config.text("model_type")
    family = FAMILIES.get(ALIASES.get(name, name))
    if family is None:
        if reason := why_not(name):
            raise ConfigError(f"{config.origin}: model_type = {name!r}: {reason}")
        known = ", ".join((*FAMILIES, *ALIASES))
        raise ConfigError(f"{config.origin}: model_type = {name[:60]!r} is not one of {known}")
    return family


def known_family(model_type: object) -> str | None:
    """Return the family that computes what a `model_type` names; None where none is known."""
    name = ALIASES.get(model_type, model_type) if isinstance(model_type, str) else None
    return name if name in FAMILIES else None


def family_for(model: ModelConfig, name: str | None = None) -> tuple[Family, dict[str, Any]]:
    """Return the family that computes what a model computes, and its `config.json`.

    Args:
        model: Our model.
        name: The family to use; none: the first that fits.

    Raises:
        ConfigError: The family, or each of them, lacks something; names it for the
            nearest.
    """
    known = known_family(name)
    if name is not None and known is None:
        raise ConfigError(f"--family {name}: there are {', '.join(FAMILIES)}")
    misfits = []
    for family in [FAMILIES[known]] if known else FAMILIES.values():
        try:
            return family, family.config(model)
        except ConfigError as error:
            misfits.append(error)
    nearest = min(misfits, key=lambda e: len(e.differences) if isinstance(e, MisfitError) else 99)
    raise ConfigError(f"transformers has no such model; the nearest: {nearest}")
