"""Joules computed from processor time: where nothing measures, and marked so."""

import os
import resource
from collections.abc import Callable

from benchmarks.energy_source import SourceInfo

# Average power of one busy vCPU of AWS servers, W: Cloud Carbon Footprint, Methodology, "Average
# Max Watts" (from SPECpower_ssj2008).
WATTS_PER_CORE = 3.5
WATTS_PER_CORE_SOURCE = "Cloud Carbon Footprint methodology, AWS average at full load"
# The kernel brings a running thread's time up to date at every timer tick.
RESOLUTION_S = 0.01


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
            resolution_s=RESOLUTION_S,
            max_power_watts=self._watts_per_core * num_cores,
            note=f"{self._watts_per_core:g} W per busy core ({origin}) x processor time;"
            " without memory, idle power and losses",
        )

    def read_joules(self) -> float:
        """Return modelled joules since the process began."""
        return self._busy_seconds() * self._watts_per_core


def processor_seconds() -> float:
    """Return processor time of this process, all threads, and of its children that ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
