"""Joules of one NVIDIA GPU from NVML's total-energy counter, found by UUID."""

import os
import time
from typing import Any

from benchmarks.energy.source import (
    Clock,
    Counter,
    SourceInfo,
    SourceLostError,
    SourceUnavailableError,
)
from parallel.measurement.units import MILLIJOULE

# The counter is updated every 20 to 100 ms (Zeus and PETSc measured it): assume the coarsest.
NVML_RESOLUTION_S = 0.1
# The interface has 64 bits; firmware that counts in 32 bits wraps after 4.3 MJ.
MODULI = (2**32, 2**64)


class NvmlSource:
    """`nvmlDeviceGetTotalEnergyConsumption` (mJ since driver load, Volta and later)."""

    def __init__(self, uuid: str, nvml: Any, clock: Clock = time.monotonic) -> None:
        """Open the GPU `uuid` (`GPU-...`) through `nvml`, the `pynvml` module or a fake of it.

        Raises:
            SourceUnavailableError: No driver, no such GPU, MIG, or no counter.
        """
        self._nvml = nvml
        try:
            nvml.nvmlInit()
            self._handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
            self._refuse_mig(uuid)
            nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
            max_watts = self._max_watts()
        except nvml.NVMLError as error:
            raise SourceUnavailableError(f"NVML: {error} (GPU {uuid})") from None
        self._counter = Counter(
            unit_joules=MILLIJOULE, moduli=MODULI, max_watts=max_watts, clock=clock
        )
        self.info = SourceInfo(
            name="nvml",
            kind="measured",
            boundary="GPU board",
            device=uuid,
            resolution_s=NVML_RESOLUTION_S,
            max_power_watts=max_watts,
        )

    def _refuse_mig(self, uuid: str) -> None:
        try:
            mode, _ = self._nvml.nvmlDeviceGetMigMode(self._handle)
        except self._nvml.NVMLError_NotSupported:
            return
        if mode == self._nvml.NVML_DEVICE_MIG_ENABLE:
            raise SourceUnavailableError(
                f"GPU {uuid} is divided by MIG: its counter covers all instances together, not"
                " this run's; turn MIG off or take the node's meter"
            )

    def _max_watts(self) -> float:
        _, highest_mw = self._nvml.nvmlDeviceGetPowerManagementLimitConstraints(self._handle)
        return float(highest_mw) / 1000

    def read_joules(self) -> float:
        """Return joules since the first reading.

        Raises:
            SourceLostError: The GPU fell off the bus, or its counter was reset.
        """
        try:
            return self._counter.add(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        except self._nvml.NVMLError as error:
            raise SourceLostError(f"NVML: {error} (GPU {self.info.device})") from None


def current_gpu_uuid() -> str:
    """Return the UUID of the GPU this process computes on, whatever `CUDA_VISIBLE_DEVICES` hides.

    Raises:
        SourceUnavailableError: The device is a MIG instance.
    """
    import torch

    if "MIG-" in os.environ.get("CUDA_VISIBLE_DEVICES", ""):
        raise SourceUnavailableError(
            "CUDA_VISIBLE_DEVICES names a MIG instance: NVML counts energy of whole GPUs only"
        )
    return f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"


def open_nvml() -> NvmlSource:
    """Open the counter of this process's GPU.

    Raises:
        SourceUnavailableError: With the reason.
    """
    import pynvml

    return NvmlSource(current_gpu_uuid(), pynvml)
