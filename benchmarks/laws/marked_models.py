"""Models set beside a law: measured runs with its prediction, and the best of a budget."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.errors import BenchmarkError
from benchmarks.laws.curves import coefficient_rows, predicted
from benchmarks.laws.fitted_law import FittedLaw
from benchmarks.laws.law import Columns
from benchmarks.laws.law_columns import law_points
from benchmarks.laws.optimum import training_flops
from benchmarks.laws.predict import beyond, interval
from benchmarks.laws.run_points import run_points
from moe.runs.run import Run

SAME = 1e-6
"""Numbers of a run and of a point of the fit that differ by less are the same."""


@dataclass(frozen=True, kw_only=True)
class MarkedModel:
    """One model in a law's own conventions, with the loss that the law predicts."""

    name: str
    sizes: Mapping[str, float]
    """The law's columns; `active_parameters` and `flops` as the law counts them, where it does."""
    predicted: float
    """Nats per token."""
    interval: list[float] | None
    """The middle 95% of resampled fits: of the law's curve, not of single runs."""
    measured: float | None = None
    """Held-out loss, nats per token; `None` of a model that is only predicted."""
    in_fit: bool | None = None
    """Whether it is one of the points of the fit; `None` where these are not known."""
    beyond: tuple[str, ...] = ()
    """Columns in which it lies outside the fitted points."""

    @property
    def error(self) -> float | None:
        """The predicted loss over the measured one, minus 1."""
        return None if self.measured is None else self.predicted / self.measured - 1

    def as_json(self) -> dict[str, Any]:
        """Return the model as JSON values."""
        return {
            "name": self.name,
            "sizes": dict(self.sizes),
            "measured_loss": self.measured,
            "predicted_loss": self.predicted,
            "interval": self.interval,
            "error": self.error,
            "in_fit": self.in_fit,
            "beyond": list(self.beyond),
        }


@dataclass(frozen=True)
class RunsByLaw:
    """Runs beside a law."""

    models: tuple[MarkedModel, ...]
    left_out: tuple[str, ...]
    """Why runs are not among them, a sentence each."""
    warnings: tuple[str, ...]


def runs_by_law(fitted: FittedLaw, runs: Sequence[Run]) -> RunsByLaw:
    """Return what a law predicts for finished runs; those that it cannot tell come apart."""
    models: list[MarkedModel] = []
    reasons: dict[str, list[str]] = {}
    warnings: list[str] = []
    for run in runs:
        try:
            points = law_points(fitted.law, run_points([run]))
            models.append(
                marked_model(fitted, run.name, points.columns, measured=float(points.target[0]))
            )
            warnings += points.warnings
        except BenchmarkError as error:
            reasons.setdefault(str(error), []).append(run.name)
    left_out = (f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
    return RunsByLaw(tuple(models), tuple(left_out), tuple(dict.fromkeys(warnings)))


def marked_model(
    fitted: FittedLaw, name: str, columns: Columns, *, measured: float | None = None
) -> MarkedModel:
    """Return one model with its predicted loss.

    Args:
        fitted: The law.
        name: The model's.
        columns: The law's, [1] each.
        measured: Its held-out loss.

    Raises:
        BenchmarkError: The law has no positive loss there.
    """
    losses = predicted(fitted.law, columns, coefficient_rows(fitted))[:, 0]
    if not math.isfinite(losses[0]):
        raise BenchmarkError(f"law {fitted.law.name!r} has no positive {fitted.law.target} there")
    drawn = losses[1:]
    sizes = {column: float(values[0]) for column, values in columns.items()}
    return MarkedModel(
        name=name,
        sizes=_counted(fitted, columns) | sizes,
        predicted=float(losses[0]),
        interval=interval([float(loss) for loss in drawn[np.isfinite(drawn)]]),
        measured=measured,
        in_fit=None if measured is None else _is_in_fit(fitted, sizes, measured),
        beyond=tuple(beyond(fitted, sizes)),
    )


def _counted(fitted: FittedLaw, columns: Columns) -> dict[str, float]:
    """Return active parameters and training FLOPs by the law's own counting."""
    space, flops = fitted.law.space, training_flops(fitted.law, columns)
    if space is None or flops is None:
        return {}
    return {"active_parameters": float(space.active(columns)[0]), "flops": float(flops[0])}


def _is_in_fit(fitted: FittedLaw, sizes: Mapping[str, float], measured: float) -> bool | None:
    if fitted.fit is None:
        return None
    problem = fitted.fit.problem
    same = np.isclose(problem.target, measured, rtol=SAME, atol=0)
    for name, value in sizes.items():
        same &= np.isclose(problem.columns[name], value, rtol=SAME, atol=SAME)
    return bool(same.any())
