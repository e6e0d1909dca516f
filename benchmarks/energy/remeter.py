"""Metering a finished run again, by power samples that another device logged meanwhile."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.energy.phases.phase_log import PhaseInterval, phase_intervals, read_phases
from benchmarks.energy.phases.totals import Totals
from benchmarks.energy.record import energy_section
from benchmarks.energy.samples.power_samples import PowerSamples, SampleFile
from benchmarks.energy.source import SourceLostError
from benchmarks.errors import BenchmarkError

# MLPerf Training's power rules ask for at least so many samples, at least one a second.
MLPERF_SAMPLES, MLPERF_INTERVAL_S = 60, 1.0


def remeter_from_samples(
    run_dir: Path, record: Mapping[str, Any], file: Path, devices: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return a run's `energy` section from a CSV of power samples (`SampleFile`).

    Args:
        run_dir: The run.
        record: Its record.
        file: The samples.
        devices: Those to sum, as `SampleFile` takes them.

    Raises:
        BenchmarkError: The samples or the run's phases cannot be read.
    """
    rows = read_phases(run_dir)
    intervals, killed = phase_intervals(rows)
    if not intervals:
        raise BenchmarkError(f"{run_dir}: phases.csv is missing or empty: this run cannot be timed")
    samples = SampleFile(file, devices).samples
    totals = Totals(killed=killed, starts=sum(row.event == "start" for row in rows))
    _add_samples(totals, intervals, samples)
    info = samples.info(file, note=_note(samples.interval_s, intervals, file))
    return energy_section(totals, info, asked="csv", tokens=int(record.get("tokens") or 0))


def _add_samples(totals: Totals, intervals: list[PhaseInterval], samples: PowerSamples) -> None:
    """Add each interval's time and joules, up to the first in which the logger was silent."""
    quantum = 2 * samples.interval_s * samples.max_watts
    end_s = None
    for interval in intervals:
        if interval.begin_s != end_s:  # another start, or a gap
            totals.quantization_joules += quantum
        end_s = interval.end_s
        seconds = interval.end_s - interval.begin_s
        totals.add(interval.phase, seconds=seconds, quantization=quantum)
        try:
            totals.add(interval.phase, joules=samples.joules(interval.begin_s, interval.end_s))
        except SourceLostError as error:
            totals.reasons.append(str(error))
            break


def _note(sample_interval_s: float, intervals: list[PhaseInterval], file: Path) -> str:
    total_s = sum(interval.end_s - interval.begin_s for interval in intervals)
    enough = total_s / sample_interval_s >= MLPERF_SAMPLES
    dense = sample_interval_s <= MLPERF_INTERVAL_S and enough
    rule = "as dense as" if dense else "sparser or fewer than"
    return (
        f"power samples every {sample_interval_s:g} s from {file}: {rule} MLPerf's power rules ask"
    )
