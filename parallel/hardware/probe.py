"""What the devices of this machine are and can do: described, and measured."""

import time
from typing import Any

import torch


def measure_matmul_rate(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Measure the rate of square matmuls, the peak that MFU is relative to.

    Returns `flops_per_s` (median of several matmuls of 2 n^3 operations each) and its `source`.
    """
    size = 8192 if device.type == "cuda" else 1024
    a = torch.randn(size, size, device=device, dtype=dtype)
    b = torch.randn(size, size, device=device, dtype=dtype)
    times = []
    for _ in range(6):
        _synchronize(device)
        begin = time.perf_counter()
        torch.mm(a, b)
        _synchronize(device)
        times.append(time.perf_counter() - begin)
    median = sorted(times[1:])[len(times[1:]) // 2]
    name = str(dtype).removeprefix("torch.")
    return {
        "flops_per_s": 2 * size**3 / median,
        "source": f"measured: {name} product of {size} x {size} matrices on this rank's device",
    }


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def describe_device(device: torch.device) -> dict[str, Any]:
    """Return the device's kind and name, and its memory in bytes (GPU) or threads (CPU)."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return {
            "device": "cuda",
            "name": properties.name,
            "memory_bytes": properties.total_memory,
        }
    return {"device": "cpu", "name": _cpu_name(), "threads": torch.get_num_threads()}


def compute_capability() -> tuple[int, int]:
    """Return major and minor compute capability of this process's current GPU."""
    return torch.cuda.get_device_capability()


def _cpu_name() -> str | None:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = [line for line in file if line.startswith("model name")]
    except OSError:
        return None
    return lines[0].partition(":")[2].strip() if lines else None
