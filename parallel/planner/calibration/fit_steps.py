"""Fits what training adds to kernels (`step.toml`) on published steps: few numbers, all rows.

The runner, which knows models by name, is `benchmarks/planning/calibrate_steps.py`.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log

import numpy as np
from numpy.typing import NDArray

from parallel.planner.calibration.least_squares import Vector, fit_least_squares
from parallel.planner.step.parameters import StepParameters
from parallel.planner.validation.jobs import Job
from parallel.planner.validation.score import Predictor
from parallel.planner.validation.uncertainty import likely_seconds

PULLS: Mapping[str, float] = {
    "bf16_stretch": 1.5,
    "fp8_stretch": 1.5,
    "attention_stretch": 1.0,
    "stream_stretch": 1.0,
    "gap_seconds": 0.4,
    "expert_gap_seconds": 0.2,
    "launch_seconds": 0.2,
    "exchange_stretch": 0.8,
    "hidden_share": 0.4,
    "chunk_stretch": 1.0,
    "layer_step_seconds": 0.2,
    "step_seconds": 0.2,
}
"""Parameters, each with the weight of its distance (ln, or logit of a share) from its start.

As much as an error of 10 % in one layout weigh 7 % of a product's time, 10 % of what memory
bandwidth limits, 12 % of an exchange's, and a factor of 1.6 in microseconds. With a tenth of it,
what few rows tell goes where one odd row pulls it, and cards left out are predicted far off."""
_SHARES = ("hidden_share",)
START: Mapping[str, float] = {
    "bf16_stretch": 1.13,
    "fp8_stretch": 1.13,
    "attention_stretch": 1.08,
    "stream_stretch": 1.25,
    "gap_seconds": 2e-6,
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


class StepFit:
    """Residuals of samples at given parameters, and what is least from a start."""

    def __init__(
        self,
        start: StepParameters,
        samples: Sequence[StepSample],
        predictor_of: Callable[[StepParameters], Predictor],
    ) -> None:
        """Take samples and where to start; fits are pulled towards `START`."""
        self._start, self._samples, self._predictor_of = start, samples, predictor_of
        self._first = np.array([_to_free(name, getattr(start, name)) for name in PULLS])
        self._centre = np.array([_to_free(name, START[name]) for name in PULLS])

    def fitted(self, *, most_iterations: int = 6) -> StepParameters:
        """Return the parameters for which predicted steps are nearest to measured, as ratios."""
        fit = fit_least_squares(
            lambda free: np.concatenate([self._errors(free), self._pulls(free)]),
            self._first,
            most_iterations=most_iterations,
            tolerance=1e-3,
        )
        return self._parameters(fit.parameters)

    def fitted_without(self, left_out: Sequence[Sequence[int]]) -> list[StepParameters]:
        """Return the parameters fitted on all samples but those of each list of indices.

        Errors are taken as linear in ln(parameter) around the start, which has to be near: so many
        fits take no more predictions than one step of one fit.
        """
        errors, step = self._errors(self._first), 1e-3
        slopes = np.stack(
            [
                (self._errors(self._first + step * unit) - errors) / step
                for unit in np.eye(len(PULLS))
            ],
            axis=1,
        )
        return [self._linear_fit(errors, slopes, set(indices)) for indices in left_out]

    def _linear_fit(
        self, errors: Vector, slopes: NDArray[np.float64], left_out: set[int]
    ) -> StepParameters:
        kept = [index for index in range(len(errors)) if index not in left_out]

        def residuals(free: Vector) -> Vector:
            near = errors[kept] + slopes[kept] @ (free - self._first)
            return np.concatenate([near, self._pulls(free)])

        return self._parameters(fit_least_squares(residuals, self._first).parameters)

    def _errors(self, free: Vector) -> Vector:
        predictor = self._predictor_of(self._parameters(free))
        return np.array(
            [
                sample.weight * log(_likely(predictor, sample) / sample.measured_seconds)
                for sample in self._samples
            ]
        )

    def _pulls(self, free: Vector) -> Vector:
        pulls: Vector = np.array(list(PULLS.values())) * (free - self._centre)
        return pulls

    def _parameters(self, free: Vector) -> StepParameters:
        values = {name: _from_free(name, float(x)) for name, x in zip(PULLS, free, strict=True)}
        return self._start.model_copy(update=values)


def _likely(predictor: Predictor, sample: StepSample) -> float:
    readings = [predictor.step_seconds(job) for job in sample.jobs]
    return likely_seconds(readings, 0.0).seconds


def _to_free(name: str, value: float) -> float:
    return log(value / (1 - value)) if name in _SHARES else log(value)


def _from_free(name: str, free: float) -> float:
    return 1 / (1 + exp(-free)) if name in _SHARES else exp(free)
