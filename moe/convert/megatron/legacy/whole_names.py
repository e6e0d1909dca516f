"""Names of tensors in one rank's part of a model, and in the whole."""

import re

_NUMBER = "([0-9]{1,9})"
_LAYER = re.compile(rf"decoder\.layers\.{_NUMBER}\.(.*)")
_GROUPED = re.compile(rf"(.*\.experts\.)(linear_fc[12]\.(?:weight|bias)){_NUMBER}")
_SEQUENTIAL = re.compile(rf"(.*\.experts\.)local_experts\.{_NUMBER}\.(.*)")


def local_layer(name: str) -> int | None:
    """Return the number of a tensor's layer among those of its part, if it is in one."""
    match = _LAYER.fullmatch(name)
    return int(match[1]) if match else None


def whole_name(name: str, first_layer: int, first_expert: int) -> str:
    """Return a tensor's name in the whole model, with each expert under its number.

    Args:
        name: In a part of the model.
        first_layer: The number of the part's first layer.
        first_expert: The number of its first expert.
    """
    if match := _LAYER.fullmatch(name):
        name = f"decoder.layers.{first_layer + int(match[1])}.{match[2]}"
    if match := _GROUPED.fullmatch(name):
        return f"{match[1]}experts.{first_expert + int(match[3])}.{match[2]}"
    if match := _SEQUENTIAL.fullmatch(name):
        return f"{match[1]}experts.{first_expert + int(match[2])}.{match[3]}"
    return name


def is_routed_expert(name: str) -> bool:
    """Whether a tensor, in a part, is one of a routed expert."""
    return bool(_GROUPED.fullmatch(name) or _SEQUENTIAL.fullmatch(name))
