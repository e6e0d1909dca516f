"""What measuring needs: a device that has finished, its peak, and weights that stay."""

from collections.abc import Iterable
from typing import Any

import torch

HELD_RATE = 1e-12
"""Learning rate of measured steps: they compute what any step does, and weights stay as they are,
so that no routing that was measured before has changed them."""


def synchronize(device: torch.device) -> None:
    """Wait until a device has finished all work queued on it; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def best_rate(rates: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the highest of measured matmul rates."""
    return max(rates, key=lambda rate: float(rate["flops_per_s"]))
