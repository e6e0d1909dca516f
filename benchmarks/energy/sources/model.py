"""Joules modelled from rated power and utilization, where nothing can be measured."""

import os
import resource
import time
from collections.abc import Callable

from benchmarks.energy.source import Clock, SourceInfo

# Average power of one busy vCPU of AWS servers, W: Cloud Carbon Footprint, Methodology, "Average
# Max Watts" (from SPECpower_ssj2008).
WATTS_PER_CORE = 3.5
WATTS_PER_CORE_SOURCE = "Cloud Carbon Footprint methodology, AWS average at full load"
# The kernel updates a running thread's processor time at every timer tick.
CPU_TIME_RESOLUTION_S = 0.01


class CpuModelSource:
    """Power of a busy core times the processor time of this process and its ended children."""

    def __init__(
        self,
        hostname: str,
        cpu_watts: float | None,
        num_cores: int,
        busy_seconds: Callable[[], float] | None = None,
    ) -> None:
        """Model `num_cores` logical cores that draw `cpu_watts` (W) together at full load."""
        self._busy_seconds = busy_seconds or processor_seconds
        self._watts_per_core = cpu_watts / num_cores if cpu_watts else WATTS_PER_CORE
        origin = "energy.cpu_watts / cores" if cpu_watts else WATTS_PER_CORE_SOURCE
        self.info = SourceInfo(
            name="model",
            kind="modelled",
            boundary="CPU cores used by this run",
            device=f"process {os.getpid()} on {hostname} ({num_cores} cores)",
            resolution_s=CPU_TIME_RESOLUTION_S,
            max_power_watts=self._watts_per_core * num_cores,
            note=f"{self._watts_per_core:g} W per busy core ({origin}) x processor time;"
            " without memory, idle power and losses",
        )

    def read_joules(self) -> float:
        """Return modelled joules since the process began."""
        return self._busy_seconds() * self._watts_per_core


class GpuModelSource:
    """Rated power of a GPU x assumed utilization x wall time; utilization 1 is an upper bound."""

    def __init__(
        self,
        device: str,
        watts: float,
        utilisation: float,
        origin: str,
        clock: Clock = time.monotonic,
    ) -> None:
        """Model the GPU `device`; its `watts` (W) are known from `origin`."""
        self._clock, self._watts = clock, watts * utilisation
        self.info = SourceInfo(
            name="model",
            kind="modelled",
            boundary="GPU board",
            device=device,
            resolution_s=0.0,
            max_power_watts=self._watts,
            note=f"{watts:g} W ({origin}) x utilization {utilisation:g} x wall time",
        )

    def read_joules(self) -> float:
        """Return modelled joules since some fixed moment."""
        return self._clock() * self._watts


def processor_seconds() -> float:
    """Return processor time of this process (all threads) and of its ended children, s."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
