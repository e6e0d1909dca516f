"""A finished run metered by power samples that something else logged meanwhile."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.energy.phase_log import Stretch, read_phases, stretches
from benchmarks.energy.source import SourceLostError
from benchmarks.energy.source_power_csv import SampleFile
from benchmarks.energy.totals import Totals
from benchmarks.errors import BenchmarkError

# MLPerf Training's power rules ask for at least so many samples, at least one a second.
MLPERF_SAMPLES, MLPERF_INTERVAL_S = 60, 1.0


def energy_by_samples(run_dir: Path, record: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Return an `energy` section of a run from a CSV of power samples (`SampleFile`).

    Raises:
        BenchmarkError: The samples or the run's phases cannot be read.
    """
    found, killed = stretches(read_phases(run_dir))
    if not found:
        raise BenchmarkError(f"{run_dir}: phases.csv is missing or empty: this run cannot be timed")
    samples = SampleFile(file).samples
    quantum = 2 * samples.interval_s * samples.max_watts
    totals = Totals(killed=killed, starts=sum(r.event == "start" for r in read_phases(run_dir)))
    for stretch in found:
        phase = totals.phases.setdefault(
            stretch.phase, {"joules": 0.0, "seconds": 0.0, "quantisation_joules": 0.0}
        )
        phase["seconds"] += stretch.end_s - stretch.begin_s
        phase["quantisation_joules"] += quantum
        try:
            phase["joules"] += samples.joules(stretch.begin_s, stretch.end_s)
        except SourceLostError as error:
            totals.reasons.append(str(error))
            break
    names = ", ".join(name for name in samples.devices if name)
    meter = {"source": "csv", "boundary": names or "what the samples' meter covers",
             "kind": "measured"}  # fmt: skip
    train, tokens = totals.energy(meter, "train"), int(record.get("tokens") or 0)
    train_s = totals.phases.get("train", {}).get("seconds", 0.0)
    return {
        **meter,
        "note": _note(samples.interval_s, found, file),
        "asked": "csv",
        "missing": totals.reasons,
        "total": totals.energy(meter).to_json(),
        "train": train.to_json(),
        "per_token": train.over(tokens, "J/token").to_json(),
        "mean_power": train.over(train_s, "W").to_json(),
        "tokens": tokens,
        "phases": {
            name: {"seconds": phase["seconds"], **totals.energy(meter, name).to_json()}
            for name, phase in totals.phases.items()
        },
        "resolution_s": samples.interval_s,
        "starts": totals.starts,
    }


def _note(interval_s: float, found: list[Stretch], file: Path) -> str:
    whole_s = sum(stretch.end_s - stretch.begin_s for stretch in found)
    dense = interval_s <= MLPERF_INTERVAL_S and whole_s / interval_s >= MLPERF_SAMPLES
    rule = "as dense as" if dense else "sparser or fewer than"
    return f"power samples every {interval_s:g} s from {file}: {rule} MLPerf's power rules ask"
