"""Parameters of steps are found again where steps were made from them."""

from dataclasses import replace
from typing import Any, cast

import pytest

from parallel.planner.calibration.fit_steps import (
    PULLS,
    START,
    StepFit,
    StepSample,
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
        self.parameters = parameters

    def memory_bytes(self, job: Job) -> int:
        raise NotImplementedError

    def fits(self, job: Job) -> bool:
        raise NotImplementedError

    def step_seconds(self, job: Job) -> float:
        times = cast("dict[str, float]", job)
        return sum(count * getattr(self.parameters, name) for name, count in times.items())


def samples(parameters: StepParameters) -> list[StepSample]:
    true = Linear(parameters)
    jobs = [cast("Job", each) for each in STEPS]
    return [
        StepSample(jobs=[job], measured_seconds=true.step_seconds(job), weight=1.0) for job in jobs
    ]


def test_what_made_the_steps_is_found_again() -> None:
    start = step_parameters()
    made = start.model_copy(update=TRUE)
    found = StepFit(start, samples(made), Linear).fitted(most_iterations=20)
    for name, value in TRUE.items():
        assert getattr(found, name) == pytest.approx(value, rel=0.05), name


def test_what_no_step_depends_on_stays_where_fits_start() -> None:
    far = step_parameters().model_copy(update={"chunk_stretch": 2.0})
    found = StepFit(far, samples(far), Linear).fitted(most_iterations=20)
    assert found.chunk_stretch == pytest.approx(START["chunk_stretch"], rel=0.01)


def test_a_fit_without_some_samples_never_sees_them() -> None:
    """Near the truth, one linear fit without spoilt samples stays there; with them it is pulled."""
    made = step_parameters().model_copy(update=TRUE)
    near = made.model_copy(update={"bf16_stretch": 1.25})
    spoilt = [
        replace(each, measured_seconds=2 * each.measured_seconds) if index < 20 else each
        for index, each in enumerate(samples(made))
    ]
    without, with_them = StepFit(near, spoilt, Linear).fitted_without([range(20), []])
    assert without.bf16_stretch == pytest.approx(TRUE["bf16_stretch"], rel=0.02)
    assert with_them.bf16_stretch != pytest.approx(TRUE["bf16_stretch"], rel=0.02)


def test_every_parameter_is_fitted_and_half_of_the_layouts_are() -> None:
    values: dict[str, Any] = step_parameters().model_dump()
    assert set(PULLS) == set(START) == set(values) - {"spread", "measured_cards"}
    half = sum(is_fitted_on(f"layout {number}") for number in range(400))
    assert half == pytest.approx(200, abs=40)
