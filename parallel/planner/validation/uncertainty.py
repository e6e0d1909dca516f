"""How far off a prediction of a published step may be: its 80% interval."""

from dataclasses import dataclass
from math import exp, log, sqrt

from parallel.hardware.card import load_card
from parallel.planner.step.parameters import StepParameters
from parallel.planner.validation.jobs import Job
from parallel.planner.validation.rows import PublishedRow

WITHIN_80 = 1.2816
"""Standard deviations of a normal distribution on each side of the middle 80%."""
TUNED = 4.0
"""Power of speed by which a reading of a row is likelier: published steps are of tuned runs."""
_ALWAYS = ("mbs", "recompute")
_SPARSE = ("dispatcher", "ep_overlap", "cuda_graphs")


@dataclass(frozen=True, kw_only=True)
class Likely:
    """Seconds of a step of which several readings are possible."""

    seconds: float
    low: float
    high: float


def unknown_flags(row: PublishedRow, job: Job) -> tuple[str, ...]:
    """Return the columns that decide a step's speed and that the row does not state."""
    layout = job.work.layout
    names = list(_ALWAYS)
    if layout.pp > 1:
        names.append("vpp")
    if layout.ep > 1:
        names += _SPARSE
    elif layout.tp > 1:
        names.append("tp_overlap")
    return tuple(name for name in names if row.text(name) is None)


def likely_seconds(readings: list[float], spread: float) -> Likely:
    """Return the likely seconds of a step, and their 80% interval.

    Args:
        readings: Seconds of each reading.
        spread: Standard deviation of ln(measured / predicted) of rows that say as much.
    """
    logs = [log(seconds) for seconds in readings]
    fastest = min(logs)
    weights = [exp(-TUNED * (each - fastest)) for each in logs]
    total = sum(weights)
    mean = sum(weight * each for weight, each in zip(weights, logs, strict=True)) / total
    variance = sum(w * (each - mean) ** 2 for w, each in zip(weights, logs, strict=True)) / total
    half = WITHIN_80 * sqrt(spread**2 + variance)
    return Likely(seconds=exp(mean), low=exp(mean - half), high=exp(mean + half))


def spread_of(row: PublishedRow, job: Job, parameters: StepParameters) -> float:
    """Return the spread of rows of this kind: dense or sparse, flags stated, card measured."""
    unknown, spread = bool(unknown_flags(row, job)), parameters.spread
    if any(job.work.shape.sparse_layers):
        of_kind = spread.sparse_unknown if unknown else spread.sparse
    else:
        of_kind = spread.dense_unknown if unknown else spread.dense
    return parameters.spread_on(of_kind, load_card(job.gpu))
