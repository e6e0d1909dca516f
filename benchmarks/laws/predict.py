"""`moe predict`: the best sizes under a limit of FLOPs, with intervals."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.errors import BenchmarkError
from benchmarks.laws.fitted_law import FittedLaw
from benchmarks.laws.fitting.bootstrap import LEVEL
from benchmarks.laws.fitting.profile_prediction import prediction_interval
from benchmarks.laws.law import Space
from benchmarks.laws.optimum import FLOPS_PER_SERVED, Compute, Dials, Optimum, find_optimum

MIN_FLOPS, MAX_FLOPS = 1e9, 1e40
MAX_COMBINATIONS = 4096
MAX_RESAMPLED = 64
"""Of more combinations of dials, resamples choose sizes at the best one only."""
AT_EDGE = "no best size within 1e3 to 1e18 parameters"


def predict(fitted: FittedLaw, flops: float, served_tokens: float = 0.0) -> dict[str, Any]:
    """Return the sizes of least loss at so many FLOPs of training, and of serving so many tokens.

    Raises:
        BenchmarkError: The law has no sizes to choose, or the FLOPs are out of range.
    """
    if not MIN_FLOPS <= flops <= MAX_FLOPS:
        raise BenchmarkError(f"--flops {flops:g}: from {MIN_FLOPS:g} to {MAX_FLOPS:g}")
    compute = Compute(flops, served_tokens)
    law, space = fitted.law, fitted.law.space
    if space is None:
        raise BenchmarkError(
            f"law {law.name!r} does not tell sizes from FLOPs alone: it gives {law.target} of"
            f" {', '.join(law.columns)}"
        )
    candidates = _combinations(fitted, space)
    best = find_optimum(law, space, fitted.values, candidates, compute)
    if not math.isfinite(best.loss):
        served = f", {served_tokens:g} tokens served" if served_tokens else ""
        raise BenchmarkError(f"law {law.name!r} has no positive value at --flops {flops:g}{served}")
    open_dials = candidates if len(candidates) <= MAX_RESAMPLED else [best.dials]
    drawn = _resampled(fitted, space, open_dials, compute)
    serving_flops = FLOPS_PER_SERVED * served_tokens * float(best.sizes["active_parameters"])
    outside = beyond(fitted, best.sizes)
    warnings = [f"{name} is beyond the fitted points" for name in outside]
    if best.at_edge:
        warnings.append(AT_EDGE)
    return {
        "law": law.name,
        "origin": fitted.origin,
        "coefficients": fitted.values,
        "best": best.sizes,
        "loss": best.loss,
        "interval": interval([b.loss for b in drawn]),
        "best_intervals": {name: interval([b.sizes[name] for b in drawn]) for name in best.sizes},
        "profile_interval": profile(fitted, best.sizes),
        "interval_level": LEVEL,
        "cost": {
            "bound_by": "flops",
            "training_flops": flops - serving_flops,
            "serving_flops": serving_flops,
            "convention": law.conventions.flops,
            "kind": "modelled",
        },
        "conventions": law.conventions.as_json(),
        "extrapolated": outside,
        "warnings": warnings,
        "notes": list(law.notes),
    }


def _combinations(fitted: FittedLaw, space: Space) -> list[Dials]:
    """Return all combinations of the dials' values."""
    choices = []
    for name, values in fitted.dial_values().items():
        if not values:
            raise BenchmarkError(f"{fitted.origin}: no values of {name!r} to choose from")
        choices.append([(name, value) for value in values])
    count = math.prod(len(choice) for choice in choices)
    if count > MAX_COMBINATIONS:
        raise BenchmarkError(f"{fitted.origin}: {count} combinations of {', '.join(space.dials)}")
    return [dict(combination) for combination in itertools.product(*choices)]


def _resampled(
    fitted: FittedLaw, space: Space, candidates: list[Dials], compute: Compute
) -> list[Optimum]:
    """Return the best sizes by each resample's coefficients."""
    if fitted.resamples is None:
        return []
    law = fitted.law
    drawn = [dict(zip(law.coefficients, row, strict=True)) for row in fitted.resamples]
    found = [find_optimum(law, space, values, candidates, compute) for values in drawn]
    return [one for one in found if math.isfinite(one.loss)]


def profile(fitted: FittedLaw, sizes: Mapping[str, float]) -> list[float | None] | None:
    """Return the profile interval of the loss at some sizes; `None` without points."""
    if fitted.fit is None:
        return None
    with np.errstate(all="ignore"):
        return list(prediction_interval(fitted.fit, sizes))


def interval(values: list[float]) -> list[float] | None:
    """Return the middle 95% of resampled values; `None` without them."""
    if len(values) < 2:
        return None
    low, high = np.percentile(values, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return [float(low), float(high)]


def beyond(fitted: FittedLaw, sizes: Mapping[str, float]) -> list[str]:
    """Return the sizes outside the range of the fitted points."""
    ranges = fitted.ranges or {}
    return [
        name
        for name, (low, high) in ranges.items()
        if name in sizes and not low * 0.999 <= sizes[name] <= high * 1.001
    ]
