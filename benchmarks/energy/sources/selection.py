"""Which energy source a run gets: the best that works here, or exactly the one requested."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.energy.source import EnergySource, SourceUnavailableError
from benchmarks.energy.sources.codecarbon import open_codecarbon
from benchmarks.energy.sources.model import CpuModelSource, GpuModelSource
from benchmarks.energy.sources.nvml import open_nvml
from benchmarks.energy.sources.power_csv import PowerCsvSource
from benchmarks.energy.sources.rapl import RaplSource
from benchmarks.energy.sources.slurm import SlurmSource
from benchmarks.energy.sources.zeus import open_zeus
from benchmarks.errors import BenchmarkError
from moe.config.energy import EnergyConfig
from moe.runs.callbacks import RankContext
from parallel.hardware.datasheet import rated_watts

Opener = Callable[[EnergyConfig, RankContext], EnergySource]


@dataclass(frozen=True)
class SourceSelection:
    """The selected source, or none, and why better ones were rejected."""

    source: EnergySource | None
    rejected: dict[str, str]
    """Name of each source tried before, with the reason."""

    @property
    def reason(self) -> str:
        """Why there is no source, in one line."""
        tried = "; ".join(f"{name}: {reason}" for name, reason in self.rejected.items())
        return f"no meter works here ({tried})" if tried else "energy.source is none"


def _open_nvml(config: EnergyConfig, context: RankContext) -> EnergySource:
    if context.device != "cuda":
        raise SourceUnavailableError("the run computes on no GPU")
    return open_nvml()


def _open_rapl(config: EnergyConfig, context: RankContext) -> EnergySource:
    source = RaplSource(context.hostname)
    if context.local_rank == 0:
        source.keep_alive()
    return source


def _open_slurm(config: EnergyConfig, context: RankContext) -> EnergySource:
    return SlurmSource()


def _open_csv(config: EnergyConfig, context: RankContext) -> EnergySource:
    return PowerCsvSource(Path(config.power_csv or ""), config.power_devices)


def _open_zeus(config: EnergyConfig, context: RankContext) -> EnergySource:
    if context.device != "cuda":
        raise SourceUnavailableError("the run computes on no GPU")
    return open_zeus()


def _open_codecarbon(config: EnergyConfig, context: RankContext) -> EnergySource:
    return open_codecarbon(context.hostname)


def _open_model(config: EnergyConfig, context: RankContext) -> EnergySource:
    if context.device == "cpu":
        return CpuModelSource(context.hostname, config.cpu_watts, os.cpu_count() or 1)
    import torch

    device = f"GPU {context.local_rank} of {context.hostname}"
    if config.gpu_watts is not None:
        return GpuModelSource(device, config.gpu_watts, config.gpu_utilisation, "energy.gpu_watts")
    rated = rated_watts(torch.cuda.get_device_name())
    if rated.value is None:
        raise SourceUnavailableError(f"{rated.reason}: set energy.gpu_watts")
    return GpuModelSource(device, rated.value, config.gpu_utilisation, rated.source)


OPENERS: dict[str, Opener] = {
    "nvml": _open_nvml,
    "rapl": _open_rapl,
    "slurm": _open_slurm,
    "csv": _open_csv,
    "zeus": _open_zeus,
    "codecarbon": _open_codecarbon,
    "model": _open_model,
}
# On a GPU, RAPL alone would understate the energy: it must be requested by name.
AUTO = {"cuda": ("nvml",), "cpu": ("nvml", "rapl", "model")}


def select_source(config: EnergyConfig, context: RankContext) -> SourceSelection:
    """Open the configured source, or for `auto` the first in `AUTO` that works.

    Raises:
        BenchmarkError: The source requested by name is not available here.
    """
    if config.source == "none":
        return SourceSelection(None, {})
    if config.source != "auto":
        return SourceSelection(_open_requested(config, context), {})
    rejected: dict[str, str] = {}
    for name in AUTO[context.device]:
        try:
            return SourceSelection(OPENERS[name](config, context), rejected)
        except SourceUnavailableError as error:
            rejected[name] = str(error)
    return SourceSelection(None, rejected)


def _open_requested(config: EnergyConfig, context: RankContext) -> EnergySource:
    try:
        return OPENERS[config.source](config, context)
    except SourceUnavailableError as error:
        raise BenchmarkError(
            f'energy.source = "{config.source}": {error};'
            ' or set energy.source = "auto" to take what works here'
        ) from None
