"""Joules of a machine by codecarbon: partly measured, partly modelled (an extra)."""

from pathlib import Path
from typing import Any

from benchmarks.energy.source import (
    SourceInfo,
    SourceLostError,
    SourceUnavailableError,
    boot_id,
)
from benchmarks.energy.sources.rapl import POWERCAP, repeats_counters
from parallel.measurement.units import JOULES_PER_KWH


class CodeCarbonSource:
    """codecarbon's total of the machine; one rank of a node reads it.

    Its CPU part is a model wherever RAPL is closed, and its memory part always is; its totals do
    not say so. They are therefore labelled modelled.
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
    """An output handler of codecarbon (`BaseOutput`) that stores the newest total."""

    kwh: float | None = None

    def out(self, total: Any, _delta: Any) -> None:
        """Store a total."""
        self.kwh = float(total.energy_consumed)

    def live_out(self, total: Any, delta: Any) -> None:
        """Ignore live figures."""

    def task_out(self, data: Any, experiment_name: str) -> None:
        """Ignore tasks."""

    def exit(self) -> None:
        """Do nothing: no file is open."""


def open_codecarbon(hostname: str, powercap: Path = POWERCAP) -> CodeCarbonSource:
    """Create codecarbon's offline tracker; it writes no file and contacts no server.

    Raises:
        SourceUnavailableError: codecarbon is not installed, or would count a counter twice here.
    """
    if repeats_counters(powercap):
        raise SourceUnavailableError(
            "the dies of this machine's CPU repeat one RAPL counter, and codecarbon sums them"
            ' (mlco2/codecarbon#1379): set energy.source = "rapl", which counts it once'
        )
    try:
        from codecarbon import OfflineEmissionsTracker
    except ImportError:
        raise SourceUnavailableError(
            "codecarbon is not installed: pip install 'moescale[codecarbon]'"
        ) from None
    latest = LatestEnergy()
    # codecarbon needs a country to turn energy into carbon; only the energy is used here.
    tracker = OfflineEmissionsTracker(
        country_iso_code="FRA",
        measure_power_secs=1,
        save_to_file=False,
        log_level="critical",
        allow_multiple_runs=True,
        output_handlers=[latest],
    )
    return CodeCarbonSource(tracker, latest, hostname)
