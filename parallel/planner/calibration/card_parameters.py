"""Kernel parameters of a card by dotted name, so that a fit can read and change them."""

from collections.abc import Mapping
from typing import Any

from parallel.hardware.card import Card
from parallel.hardware.kernel_parameters import KernelParameters


def get_parameter(card: Card, name: str) -> float:
    """Return a parameter: `launch_seconds`, `matrix.bf16.efficiency`."""
    value: Any = card.kernels.model_dump()
    for part in name.split("."):
        value = value[part]
    return float(value)


def with_parameters(card: Card, changes: Mapping[str, float]) -> Card:
    """Return the card with parameters changed, validated again."""
    values = card.kernels.model_dump()
    for name, value in changes.items():
        *path, last = name.split(".")
        section = values
        for part in path:
            section = section[part]
        section[last] = value
    kernels = KernelParameters.model_validate(values)
    return card.model_copy(update={"kernels": kernels})
