"""Joules of one GPU through zeus's device layer, for NVIDIA and AMD GPUs (an extra)."""

import time
from typing import Any

from benchmarks.energy.source import (
    Clock,
    Counter,
    SourceInfo,
    SourceLostError,
    SourceUnavailableError,
)
from benchmarks.energy.sources.nvml import NVML_RESOLUTION_S, current_gpu_uuid
from parallel.measurement.units import MILLIJOULE

# No single accelerator draws more; zeus states no limit.
MAX_GPU_WATTS = 2000.0


class ZeusSource:
    """The energy counter of one GPU as zeus reads it (NVIDIA and AMD), mJ since driver load."""

    def __init__(self, gpus: Any, index: int, device: str, clock: Clock = time.monotonic) -> None:
        """Read GPU `index` of `gpus`, zeus's manager of visible GPUs.

        Raises:
            SourceUnavailableError: The GPU has no energy counter.
        """
        if not gpus.supports_get_total_energy_consumption(index):
            raise SourceUnavailableError(f"zeus: GPU {index} has no energy counter")
        self._gpus, self._index = gpus, index
        self._counter = Counter(
            unit_joules=MILLIJOULE, moduli=(2**64,), max_watts=MAX_GPU_WATTS, clock=clock
        )
        self.info = SourceInfo(
            name="zeus",
            kind="measured",
            boundary="GPU board",
            device=device,
            resolution_s=NVML_RESOLUTION_S,
            max_power_watts=None,
        )

    def read_joules(self) -> float:
        """Return joules since the first reading.

        Raises:
            SourceLostError: zeus can no longer read the GPU, or its counter was reset.
        """
        try:
            count = self._gpus.get_total_energy_consumption(self._index)
        except Exception as error:  # zeus has an exception for every vendor's every fault
            raise SourceLostError(f"zeus: {error}") from None
        return self._counter.add(count)


def open_zeus() -> ZeusSource:
    """Open this process's GPU through zeus.

    Raises:
        SourceUnavailableError: zeus is not installed, or finds no GPU.
    """
    try:
        from zeus.device import get_gpus
        from zeus.device.exception import ZeusBaseGPUError
    except ImportError:
        raise SourceUnavailableError(
            "zeus is not installed: pip install 'moescale[zeus]'"
        ) from None
    import torch

    try:
        return ZeusSource(get_gpus(), torch.cuda.current_device(), current_gpu_uuid())
    except ZeusBaseGPUError as error:
        raise SourceUnavailableError(f"zeus: {error}") from None
