"""A finished run metered by power samples that something else logged meanwhile."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.energy.phase_log import Stretch, read_phases, stretches
from benchmarks.energy.power_samples import PowerSamples, SampleFile
from benchmarks.energy.record import energy_section
from benchmarks.energy.source import SourceLostError
from benchmarks.energy.totals import Totals
from benchmarks.errors import BenchmarkError

# MLPerf Training's power rules ask for at least so many samples, at least one a second.
MLPERF_SAMPLES, MLPERF_INTERVAL_S = 60, 1.0


def energy_by_samples(run_dir: Path, record: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Return an `energy` section of a run from a CSV of power samples (`SampleFile`).

    Raises:
        BenchmarkError: The samples or the run's phases cannot be read.
    """
    rows = read_phases(run_dir)
    found, killed = stretches(rows)
    if not found:
        raise BenchmarkError(f"{run_dir}: phases.csv is missing or empty: this run cannot be timed")
    samples = SampleFile(file).samples
    totals = Totals(killed=killed, starts=sum(row.event == "start" for row in rows))
    _meter(totals, found, samples)
    info = samples.info(file, note=_note(samples.interval_s, found, file))
    return energy_section(totals, info, asked="csv", tokens=int(record.get("tokens") or 0))


def _meter(totals: Totals, found: list[Stretch], samples: PowerSamples) -> None:
    """Add each interval's time and joules, up to the first in which the logger was silent."""
    quantum = 2 * samples.interval_s * samples.max_watts
    for stretch in found:
        seconds = stretch.end_s - stretch.begin_s
        totals.add(stretch.phase, seconds=seconds, quantisation=quantum)
        try:
            totals.add(stretch.phase, joules=samples.joules(stretch.begin_s, stretch.end_s))
        except SourceLostError as error:
            totals.reasons.append(str(error))
            break


def _note(interval_s: float, found: list[Stretch], file: Path) -> str:
    whole_s = sum(stretch.end_s - stretch.begin_s for stretch in found)
    dense = interval_s <= MLPERF_INTERVAL_S and whole_s / interval_s >= MLPERF_SAMPLES
    rule = "as dense as" if dense else "sparser or fewer than"
    return f"power samples every {interval_s:g} s from {file}: {rule} MLPerf's power rules ask"
