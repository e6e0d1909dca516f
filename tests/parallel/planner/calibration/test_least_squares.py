"""The fitter finds parameters that data were made with, outliers or not, and always the same."""

from collections.abc import Callable

import numpy as np

from parallel.planner.calibration.least_squares import Vector, fit_least_squares

X = np.linspace(0.1, 3.0, 40)


def residuals_to(measured: Vector) -> Callable[[Vector], Vector]:
    def residuals(parameters: Vector) -> Vector:
        height, decay = np.exp(parameters)
        return np.asarray(np.log(height * np.exp(-decay * X) + 0.2) - np.log(measured))

    return residuals


def test_parameters_are_found_among_outliers() -> None:
    measured = 2.0 * np.exp(-1.5 * X) + 0.2
    measured[::10] *= 3.0
    residuals = residuals_to(measured)
    fit = fit_least_squares(residuals, np.log([1.0, 0.5]), outlier=0.02)
    assert np.allclose(np.exp(fit.parameters), [2.0, 1.5], rtol=0.02)
    again = fit_least_squares(residuals, np.log([1.0, 0.5]), outlier=0.02)
    assert np.array_equal(fit.parameters, again.parameters)


def test_steps_into_nonsense_are_not_taken() -> None:
    def residuals(parameters: Vector) -> Vector:
        return np.log(np.maximum(parameters, 0.0)) if parameters[0] > 0 else np.array([np.nan])

    fit = fit_least_squares(residuals, np.array([9.0]))
    assert np.allclose(fit.parameters, [1.0], atol=1e-3)
