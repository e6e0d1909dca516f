"""What the devices of this machine are and can do: described, and measured."""

import contextlib
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch

# Repeated matmuls may take this fraction of the time in which a run trains.
MAX_PROBE_SHARE = 0.005
# Rates kept of a long run, evenly spread; the highest is always among them.
MAX_RATES = 100
# Matmuls of a repeated measurement; the first one of a run takes more, and one to warm up.
NUM_REPEATED, NUM_FIRST = 3, 5


def measure_matmul_rate(
    device: torch.device, dtype: torch.dtype, repeats: int = NUM_FIRST
) -> dict[str, Any]:
    """Measure the rate of square matmuls, the peak that MFU is relative to.

    Returns `flops_per_s` (median of `repeats` matmuls of 2 n^3 operations each) and its `source`.
    """
    size = _matmul_size(device)
    # A generator of its own: a run's random numbers must not depend on when this is measured.
    random = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(size, size, device=device, dtype=dtype, generator=random) for _ in range(2))
    times = []
    for _ in range(1 + repeats):
        _synchronize(device)
        begin = time.perf_counter()
        torch.mm(a, b)
        _synchronize(device)
        times.append(time.perf_counter() - begin)
    name = str(dtype).removeprefix("torch.")
    return {
        "flops_per_s": 2 * size**3 / median(times[1:]),
        "source": f"measured: {name} product of {size} x {size} matrices on this rank's device",
    }


def utilization(flops_per_s: float, peak: Mapping[str, Any]) -> float | None:
    """Return the fraction of a measured peak; `None` where it is above 1.

    More than the peak is no utilization: something disturbed the measurement of the peak.
    """
    fraction = flops_per_s / float(peak["flops_per_s"])
    return fraction if fraction <= 1 else None


def _matmul_size(device: torch.device) -> int:
    return 8192 if device.type == "cuda" else 1024


@dataclass
class MatmulProbe:
    """The matmul rate of this rank's device, measured before a run and beside its steps.

    The peak is the highest rate: what nothing disturbed. The median tells what the device could
    do while the run was on it, and so whether two runs met the same machine.
    """

    device: torch.device
    dtype: torch.dtype
    spent_s: float = 0.0
    """Time taken by all measurements but the first."""
    record: dict[str, Any] = field(default_factory=dict)
    """The peak, `flops_per_s`, with its `source` and the spread of the measurements."""

    def __post_init__(self) -> None:
        self._rates: list[float] = []
        self._measure(NUM_FIRST)

    def repeat(self, train_time_s: float) -> None:
        """Measure once more, if all repetitions take little of `train_time_s` (s)."""
        needed_s = (1 + NUM_REPEATED) * 2 * _matmul_size(self.device) ** 3 / min(self._rates)
        if self.spent_s + needed_s > MAX_PROBE_SHARE * train_time_s:
            return
        begin = time.perf_counter()
        # A run that needs all the memory is not disturbed.
        with contextlib.suppress(torch.OutOfMemoryError):
            self._measure(NUM_REPEATED)
        self.spent_s += time.perf_counter() - begin

    def resume(self, earlier: Mapping[str, Any]) -> None:
        """Go on from the record of an earlier start on the same hardware."""
        if earlier.get("source") != self.record["source"]:
            return
        rates = earlier.get("rates_flops_per_s", [earlier["flops_per_s"]])
        self._rates = [*rates, *self._rates]
        self._update_record()

    def _measure(self, repeats: int) -> None:
        measured = measure_matmul_rate(self.device, self.dtype, repeats)
        self._rates.append(measured["flops_per_s"])
        self.record["source"] = measured["source"]
        self._update_record()

    def _update_record(self) -> None:
        highest = max(self._rates)
        if len(self._rates) > MAX_RATES:
            thinned = self._rates[::2]
            self._rates = thinned if highest in thinned else [highest, *thinned]
        self.record.update(
            flops_per_s=highest,
            median_flops_per_s=median(self._rates),
            lowest_flops_per_s=min(self._rates),
            rates_flops_per_s=list(self._rates),
        )


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
        lines = []
    # Arm's kernels name no model.
    name = lines[0].partition(":")[2].strip() if lines else ""
    return name or platform.processor() or platform.machine() or None
