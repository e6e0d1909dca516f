"""Parameters of steps are found again where steps were made from them."""

from typing import Any, cast

import pytest

from parallel.planner.calibration.fit_steps import (
    PULLS,
    START,
    StepSample,
    fit_steps,
    is_fitted_on,
)
from parallel.planner.step.parameters import StepParameters, step_parameters
from parallel.planner.validation.jobs import Job

TRUE = {"bf16_stretch": 1.3, "fp8_stretch": 1.15, "step_seconds": 0.03, "hidden_share": 0.8}
STEPS = [
    {"bf16_stretch": 1.0, "step_seconds": 1.0},
    {"bf16_stretch": 0.2, "step_seconds": 1.0},
    {"fp8_stretch": 2.0, "step_seconds": 1.0},
    {"fp8_stretch": 0.1, "step_seconds": 1.0},
    {"bf16_stretch": 0.1, "hidden_share": 0.4},
    {"fp8_stretch": 0.1, "hidden_share": 0.1},
] * 20


class Linear:
    """Steps whose seconds are sums of parameters, each so many times."""

    def __init__(self, parameters: StepParameters) -> None:
        self._parameters = parameters

    def memory_bytes(self, job: Job) -> int:
        raise NotImplementedError

    def fits(self, job: Job) -> bool:
        raise NotImplementedError

    def step_seconds(self, job: Job) -> float:
        times = cast("dict[str, float]", job)
        return sum(count * getattr(self._parameters, name) for name, count in times.items())


def samples(parameters: StepParameters) -> list[StepSample]:
    true = Linear(parameters)
    jobs = [cast("Job", each) for each in STEPS]
    return [
        StepSample(jobs=[job], measured_seconds=true.step_seconds(job), weight=1.0) for job in jobs
    ]


def test_what_made_the_steps_is_found_again() -> None:
    start = step_parameters()
    made = start.model_copy(update=TRUE)
    found = fit_steps(start, samples(made), Linear, most_iterations=20)
    for name, value in TRUE.items():
        assert getattr(found, name) == pytest.approx(value, rel=0.05), name


def test_what_no_step_depends_on_stays_where_fits_start() -> None:
    far = step_parameters().model_copy(update={"chunk_stretch": 2.0})
    found = fit_steps(far, samples(far), Linear, most_iterations=20)
    assert found.chunk_stretch == pytest.approx(START["chunk_stretch"], rel=0.01)


def test_every_parameter_is_fitted_and_half_of_the_layouts_are() -> None:
    values: dict[str, Any] = step_parameters().model_dump()
    assert set(PULLS) == set(START) == set(values) - {"spread"}
    half = sum(is_fitted_on(f"layout {number}") for number in range(400))
    assert half == pytest.approx(200, abs=40)
