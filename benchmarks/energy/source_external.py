"""Other tools' meters behind our interface, for those who want them: zeus and codecarbon."""

import time
from typing import Any

from benchmarks.energy.source import (
    Clock,
    Counter,
    SourceInfo,
    SourceLostError,
    SourceUnavailableError,
    boot_id,
)
from benchmarks.energy.source_nvml import MILLIJOULE, RESOLUTION_S, current_gpu_uuid

# No single accelerator draws more; zeus states no limit.
CEILING_WATTS = 2000.0
JOULES_PER_KWH = 3.6e6


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
            unit_joules=MILLIJOULE, moduli=(2**64,), max_watts=CEILING_WATTS, clock=clock
        )
        self.info = SourceInfo(
            name="zeus",
            kind="measured",
            boundary="GPU board",
            device=device,
            resolution_s=RESOLUTION_S,
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


class CodeCarbonSource:
    """codecarbon's account of the whole machine; one rank of a node reads it.

    Its CPU part is a model wherever RAPL is closed, and its memory part always is; its totals do
    not say so. They are therefore marked modelled.
    """

    def __init__(self, tracker: Any, latest: "LatestEnergy", hostname: str) -> None:
        """Read a tracker that hands its totals to `latest`; the first reading starts it."""
        self._tracker, self._latest, self._started = tracker, latest, False
        self.info = SourceInfo(
            name="codecarbon",
            kind="modelled",
            boundary="machine, as codecarbon sees it",
            device=f"machine {hostname} ({boot_id(hostname)})",
            resolution_s=1.0,
            max_power_watts=None,
            scope="node",
            note="codecarbon, machine mode: measured and modelled parts in one total",
        )

    def read_joules(self) -> float:
        """Return joules since the tracker began.

        Raises:
            SourceLostError: The tracker gave no total (another instance may hold its lock).
        """
        if not self._started:
            self._tracker.start()
            self._started = True
        self._latest.kwh = None
        self._tracker.flush()
        if self._latest.kwh is None:
            raise SourceLostError("codecarbon gave no total")
        return self._latest.kwh * JOULES_PER_KWH


class LatestEnergy:
    """An output of codecarbon (its `BaseOutput`) that keeps the newest total."""

    kwh: float | None = None

    def out(self, total: Any, _delta: Any) -> None:
        """Take a total."""
        self.kwh = float(total.energy_consumed)

    def live_out(self, total: Any, delta: Any) -> None:
        """Pass over live figures."""

    def task_out(self, data: Any, experiment_name: str) -> None:
        """Pass over tasks."""

    def exit(self) -> None:
        """Keep nothing open."""


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


def open_codecarbon(hostname: str) -> CodeCarbonSource:
    """Make codecarbon's offline tracker; it writes no file and asks no server.

    Raises:
        SourceUnavailableError: codecarbon is not installed.
    """
    try:
        from codecarbon import OfflineEmissionsTracker
    except ImportError:
        raise SourceUnavailableError(
            "codecarbon is not installed: pip install 'moescale[codecarbon]'"
        ) from None
    latest = LatestEnergy()
    # The country turns energy into carbon there; only the energy is taken.
    tracker = OfflineEmissionsTracker(
        country_iso_code="FRA",
        measure_power_secs=1,
        save_to_file=False,
        log_level="critical",
        allow_multiple_runs=True,
        output_handlers=[latest],
    )
    return CodeCarbonSource(tracker, latest, hostname)
