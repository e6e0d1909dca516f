"""Whether runs met the same machine: where they did not, their speeds are not compared."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence

from moe.runs.run import Run
from parallel.measurement.measurement import Measurement
from parallel.measurement.number_text import readable, significant

# Others' shares of the processors that differ by more make runs one after another unlike.
LOAD_WITHIN = 0.1
# So do measured matmul rates that differ by a larger factor.
PEAKS_WITHIN = 1.25
# Meters that others' work reaches: those of a whole node or more, and the model of processor time,
# of which threads that wait for a processor take more. A GPU's meter is not among them.
_SHARED_METERS = frozenset({"rapl", "slurm", "csv", "codecarbon", "model"})
_TIMED = frozenset({"tokens_per_s", "flops_per_s", "mfu", "wall_time_s", "device_hours", "money",
                    "money_per_token", "money_per_nat"})  # fmt: skip
_METERED = frozenset({"energy_per_token", "energy", "energy_per_nat", "mean_power", "carbon",
                      "carbon_per_token", "carbon_per_nat", "water"})  # fmt: skip


def others_share(run: Run) -> Measurement:
    """Return the share of its processors that other programs took while the run trained."""
    values = run.record.get("load")
    if not isinstance(values, dict):
        return Measurement.missing("share", "none", "not recorded by the run")
    return Measurement.from_json(values)


def mfu(run: Run) -> Measurement:
    """Return model FLOPs utilization; one above 1 is no measurement."""
    value, source = run.record.get("mfu"), "wall clock x cost ledger"
    if value is not None and value <= 1:
        return Measurement(value=value, unit="share", source=source, kind="measured")
    rate, peak = run.record.get("flops_per_s"), (run.record.get("peak") or {}).get("flops_per_s")
    if value is None and not (rate and peak and rate > peak):
        return Measurement.missing("share", source, "not recorded by the run")
    return Measurement.missing(
        "share", source, "faster than the measured peak: something disturbed the measurement of it"
    )


def doubt(key: str, runs: Iterable[Run]) -> str | None:
    """Return why a quantity of these runs is not comparable, though each was measured.

    Runs on unlike hardware are compared as they are: nobody takes them for alike.
    """
    alike: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        alike[json.dumps(run.record.get("hardware"), sort_keys=True)].append(run)
    for group in alike.values():
        reason = None
        if key in _TIMED:
            reason = _loads_apart(group) or _peaks_apart(group)
        elif key in _METERED:
            reason = _loads_apart([run for run in group if _meter(run) in _SHARED_METERS])
        if reason is not None:
            return reason
    return None


def _meter(run: Run) -> str | None:
    source = (run.record.get("energy") or {}).get("source")
    return None if source is None else str(source)


def _loads_apart(runs: Sequence[Run]) -> str | None:
    known = [(share, run) for run in runs if (share := others_share(run).value) is not None]
    if len(known) < 2:
        return None
    (low, quiet), (high, busy) = _extremes(known)
    if high - low <= LOAD_WITHIN:
        return None
    return (
        f"other programs took {readable(high, 'share')} of the processors beside {busy.name},"
        f" {readable(low, 'share')} beside {quiet.name}"
    )


def _peaks_apart(runs: Sequence[Run]) -> str | None:
    by_format: dict[str, list[tuple[float, Run]]] = defaultdict(list)
    for run in runs:
        if peak := _rate_beside(run):
            number_format = (run.record.get("execution") or {}).get("dtype")
            by_format[str(number_format)].append((peak, run))
    for known in by_format.values():
        (low, slow), (high, fast) = _extremes(known)
        if high > PEAKS_WITHIN * low:
            return (
                f"the machine's own matmul rate was {readable(high, 'FLOP/s')} beside"
                f" {fast.name}, {significant(high / low)} times the {readable(low, 'FLOP/s')}"
                f" beside {slow.name}"
            )
    return None


def _rate_beside(run: Run) -> float | None:
    """Return the typical matmul rate beside the steps, FLOP/s; of older runs the one before."""
    peak = run.record.get("peak") or {}
    rate = peak.get("median_flops_per_s", peak.get("flops_per_s"))
    return None if rate is None else float(rate)


def _extremes(
    known: Sequence[tuple[float, Run]],
) -> tuple[tuple[float, Run], tuple[float, Run]]:
    return min(known, key=lambda pair: pair[0]), max(known, key=lambda pair: pair[0])
