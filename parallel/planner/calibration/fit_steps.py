"""Fits what training adds to kernels (`step.toml`) on published steps: few numbers, all rows.

The runner, which knows models by name, is `benchmarks/planning/calibrate_steps.py`.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log

import numpy as np

from parallel.planner.calibration.least_squares import Vector, fit_least_squares
from parallel.planner.step.parameters import StepParameters
from parallel.planner.validation.jobs import Job
from parallel.planner.validation.score import Predictor
from parallel.planner.validation.uncertainty import likely_seconds

PULLS: Mapping[str, float] = {
    "bf16_stretch": 0.05,
    "fp8_stretch": 0.05,
    "attention_stretch": 0.2,
    "stream_stretch": 0.2,
    "gap_seconds": 0.2,
    "expert_gap_seconds": 0.1,
    "launch_seconds": 0.1,
    "exchange_stretch": 0.2,
    "hidden_share": 0.2,
    "chunk_stretch": 0.3,
    "layer_step_seconds": 0.15,
    "step_seconds": 0.15,
}
"""Parameters, each with the weight of its distance (ln, or logit of a share) from its start: more
where few rows tell it from another."""
_SHARES = ("hidden_share",)
START: Mapping[str, float] = {
    "bf16_stretch": 1.13,
    "fp8_stretch": 1.13,
    "attention_stretch": 1.08,
    "stream_stretch": 1.25,
    "gap_seconds": 1e-6,
    "expert_gap_seconds": 8e-6,
    "launch_seconds": 2e-5,
    "exchange_stretch": 1.15,
    "hidden_share": 0.65,
    "chunk_stretch": 1.1,
    "layer_step_seconds": 1e-3,
    "step_seconds": 8e-3,
}
"""Where fits start: 10 to 15 % from heat and neighbours, microseconds of launches."""


@dataclass(frozen=True, kw_only=True)
class StepSample:
    """One published step."""

    jobs: Sequence[Job]
    """Its readings."""
    measured_seconds: float
    weight: float
    """Rows of one layout share a weight of 1, in squares."""


def is_fitted_on(layout: str) -> bool:
    """Return whether the shipped parameters were fitted on a layout: half of them, by a hash."""
    return hashlib.sha256(layout.encode()).digest()[0] % 2 == 0


def fit_steps(
    start: StepParameters,
    samples: Sequence[StepSample],
    predictor_of: Callable[[StepParameters], Predictor],
    *,
    most_iterations: int = 6,
) -> StepParameters:
    """Return the parameters for which predicted steps are nearest to measured ones, as ratios."""
    names = list(PULLS)
    centre = np.array([_to_free(name, START[name]) for name in names])
    first = np.array([_to_free(name, getattr(start, name)) for name in names])
    pulls = np.array([PULLS[name] for name in names])
    measured = np.log([sample.measured_seconds for sample in samples])
    weights = np.array([sample.weight for sample in samples])

    def residuals(free: Vector) -> Vector:
        predictor = predictor_of(_with(start, names, free))
        predicted = [
            log(likely_seconds([predictor.step_seconds(job) for job in sample.jobs], 0.0).seconds)
            for sample in samples
        ]
        return np.concatenate([weights * (predicted - measured), pulls * (free - centre)])

    fit = fit_least_squares(residuals, first, most_iterations=most_iterations, tolerance=1e-3)
    return _with(start, names, fit.parameters)


def _with(start: StepParameters, names: Sequence[str], free: Vector) -> StepParameters:
    values = {name: _from_free(name, float(x)) for name, x in zip(names, free, strict=True)}
    return start.model_copy(update=values)


def _to_free(name: str, value: float) -> float:
    return log(value / (1 - value)) if name in _SHARES else log(value)


def _from_free(name: str, free: float) -> float:
    return 1 / (1 + exp(-free)) if name in _SHARES else exp(free)
