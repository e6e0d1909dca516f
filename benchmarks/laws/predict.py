"""The best sizes under a limit of FLOPs, by a law: 6 x active parameters x tokens.

For each combination of the other dials the law becomes a function of one number, the size, as
tokens follow from the FLOPs; its least loss is found on a fine grid and then between its points.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.errors import BenchmarkError
from benchmarks.laws.fit_record import FittedLaw, read_fit
from benchmarks.laws.fitting.bootstrap import LEVEL
from benchmarks.laws.law import FloatArray, Space
from benchmarks.laws.registry import LAWS, find_published

FLOPS_PER_PARAMETER_TOKEN = 6
MIN_FLOPS, MAX_FLOPS = 1e9, 1e40
SIZES = np.geomspace(1e3, 1e18, 601)
REFINEMENTS = 3
MAX_COMBINATIONS = 4096
AT_EDGE = "no best size within 1e3 to 1e18 parameters"


@dataclass(frozen=True)
class _Best:
    sizes: dict[str, float]
    target: float
    at_edge: bool


def find_fitted(name: str) -> FittedLaw:
    """Return the law of a file that `moe fit --json` printed, or of published coefficients.

    Raises:
        BenchmarkError: There is neither.
    """
    path = Path(name)
    if path.is_file():
        return read_fit(path)
    published = find_published(name)
    if published is None:
        names = [p.name for law in LAWS.values() for p in law.published]
        raise BenchmarkError(
            f"{name}: no such file, nor published coefficients; there are {', '.join(names)}"
        )
    law, coefficients = published
    origin = f"published: {coefficients.source}"
    return FittedLaw(law, dict(coefficients.values), origin)


def predict(fitted: FittedLaw, flops: float) -> dict[str, Any]:
    """Return the sizes of least loss at so many training FLOPs.

    Raises:
        BenchmarkError: The law has no sizes to choose, or the FLOPs are out of range.
    """
    if not MIN_FLOPS <= flops <= MAX_FLOPS:
        raise BenchmarkError(f"--flops {flops:g}: from {MIN_FLOPS:g} to {MAX_FLOPS:g}")
    law, space = fitted.law, fitted.law.space
    if space is None:
        raise BenchmarkError(
            f"law {law.name!r} does not tell sizes from FLOPs alone: it gives {law.target} of"
            f" {', '.join(law.columns)}"
        )
    candidates = _combinations(fitted, space)
    best = _best(fitted, space, fitted.values, candidates, flops)
    drawn = _resampled(fitted, space, candidates, flops)
    beyond = _beyond(fitted, best)
    warnings = [f"{name} is beyond the fitted points" for name in beyond]
    if best.at_edge:
        warnings.append(AT_EDGE)
    return {
        "law": law.name,
        "origin": fitted.origin,
        "coefficients": fitted.values,
        "best": best.sizes,
        "loss": best.target,
        "interval": _interval([b.target for b in drawn]),
        "best_intervals": {name: _interval([b.sizes[name] for b in drawn]) for name in best.sizes},
        "interval_level": LEVEL,
        "cost": {
            "training_flops": flops,
            "convention": law.conventions.flops,
            "kind": "modelled",
        },
        "conventions": law.conventions.as_json(),
        "extrapolated": beyond,
        "warnings": warnings,
        "notes": list(law.notes),
    }


def _combinations(fitted: FittedLaw, space: Space) -> list[dict[str, float]]:
    """Return the dials' values: those of the fitted points, or the law's own candidates."""
    choices = []
    for name, own in space.dials.items():
        values = own if fitted.candidates is None else fitted.candidates.get(name, ())
        if not values and fitted.ranges and name in fitted.ranges:
            low, high = fitted.ranges[name]
            values = tuple(float(v) for v in np.linspace(low, high, 9))
        if not values:
            raise BenchmarkError(f"{fitted.origin}: no values of {name!r} to choose from")
        choices.append([(name, value) for value in values])
    count = math.prod(len(choice) for choice in choices)
    if count > MAX_COMBINATIONS:
        raise BenchmarkError(f"{fitted.origin}: {count} combinations of {', '.join(space.dials)}")
    return [dict(combination) for combination in itertools.product(*choices)]


def _best(
    fitted: FittedLaw,
    space: Space,
    values: Mapping[str, float],
    candidates: list[dict[str, float]],
    flops: float,
) -> _Best:
    found = [_best_size(fitted, space, values, dials, flops) for dials in candidates]
    return min(found, key=lambda one: one.target if math.isfinite(one.target) else math.inf)


def _best_size(
    fitted: FittedLaw,
    space: Space,
    values: Mapping[str, float],
    dials: Mapping[str, float],
    flops: float,
) -> _Best:
    """Return the size of least loss at given dials; tokens take the rest of the FLOPs."""
    if space.fixed_tokens is not None:
        unit = _active(space, np.ones(1), dials)[0]
        sizes = np.array([flops / (FLOPS_PER_PARAMETER_TOKEN * space.fixed_tokens * unit)])
        columns = _columns(space, sizes, dials, flops)
        return _at(columns, _target(fitted, columns, values), 0, edge=False)
    sizes, edge = SIZES, False
    for refinement in range(REFINEMENTS + 1):
        columns = _columns(space, sizes, dials, flops)
        target = _target(fitted, columns, values)
        index = int(np.argmin(target))
        if refinement == 0:
            edge = index in (0, sizes.size - 1)
        around = sizes[max(0, index - 1)], sizes[min(sizes.size - 1, index + 1)]
        if refinement < REFINEMENTS:
            sizes = np.geomspace(*around, 65)
    return _at(columns, target, index, edge=edge)


def _active(space: Space, sizes: FloatArray, dials: Mapping[str, float]) -> FloatArray:
    columns = {space.size: sizes, **{n: np.full(sizes.size, v) for n, v in dials.items()}}
    return np.asarray(space.active(columns), dtype=float)


def _columns(
    space: Space, sizes: FloatArray, dials: Mapping[str, float], flops: float
) -> dict[str, FloatArray]:
    active = _active(space, sizes, dials)
    return {
        space.size: sizes,
        **({} if space.size == "active_parameters" else {"active_parameters": active}),
        "tokens": flops / (FLOPS_PER_PARAMETER_TOKEN * active),
        **{name: np.full(sizes.size, value) for name, value in dials.items()},
    }


def _target(
    fitted: FittedLaw, columns: Mapping[str, FloatArray], values: Mapping[str, float]
) -> FloatArray:
    with np.errstate(all="ignore"):
        target = np.asarray(fitted.law.predict(columns, values), dtype=float)
    return np.where(np.isfinite(target) & (target > 0), target, np.inf)


def _at(columns: Mapping[str, FloatArray], target: FloatArray, index: int, *, edge: bool) -> _Best:
    sizes = {name: float(column[index]) for name, column in columns.items()}
    return _Best(sizes, float(target[index]), edge)


def _resampled(
    fitted: FittedLaw, space: Space, candidates: list[dict[str, float]], flops: float
) -> list[_Best]:
    """Return the best sizes by each resample's coefficients."""
    if fitted.resamples is None:
        return []
    names = fitted.law.coefficients
    found = [
        _best(fitted, space, dict(zip(names, row, strict=True)), candidates, flops)
        for row in fitted.resamples
    ]
    return [one for one in found if math.isfinite(one.target)]


def _interval(values: list[float]) -> list[float] | None:
    if len(values) < 2:
        return None
    low, high = np.percentile(values, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return [float(low), float(high)]


def _beyond(fitted: FittedLaw, best: _Best) -> list[str]:
    """Return the sizes outside the range of the fitted points."""
    ranges = fitted.ranges or {}
    return [
        name
        for name, (low, high) in ranges.items()
        if name in best.sizes and not low * 0.999 <= best.sizes[name] <= high * 1.001
    ]
