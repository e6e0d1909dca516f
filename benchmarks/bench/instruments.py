"""What measuring needs: a device that has finished, its peak, the memory of this process."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch


def synchronize(device: torch.device) -> None:
    """Wait until a device has finished all work queued on it; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def process_bytes(key: str) -> int:
    """Return memory of this process from `/proc/self/status`, such as `VmRSS` or its peak `VmHWM`.

    The peak that `getrusage` reports is no measure: it begins with the size of the parent process.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{key}:")).split()[1])


def best_rate(rates: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the highest of measured matmul rates."""
    return max(rates, key=lambda rate: float(rate["flops_per_s"]))
