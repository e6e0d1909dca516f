"""Losses of runs before they run, with the interval of a new run, and beside what they became."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.laws.compare import LawFit
from benchmarks.laws.curves import coefficient_rows, own_losses, predicted
from benchmarks.laws.fitting.bootstrap import LEVEL
from benchmarks.laws.law import FloatArray

DRAWS = 200
"""Residuals drawn for each resample of the law."""
_SIZES = ("active_parameters", "parameters", "tokens", "flops")


@dataclass(frozen=True)
class Prediction:
    """What a law says of a run that has not run."""

    loss: float
    """Nats per token."""
    low: float
    high: float
    """Ends of the interval that a new run's loss falls into."""


@dataclass(frozen=True)
class Outcome:
    """A prediction beside the runs it was for."""

    experts: int
    active_parameters: float
    parameters: float
    tokens: float
    flops: float
    predicted: Prediction
    measured: tuple[float, ...]
    """Held-out losses, one a seed."""

    @property
    def error(self) -> float:
        """Predicted minus mean measured loss, nats per token."""
        return self.predicted.loss - float(np.mean(self.measured))

    @property
    def inside(self) -> int:
        """Runs whose loss fell into the interval."""
        return sum(self.predicted.low <= loss <= self.predicted.high for loss in self.measured)

    def as_json(self) -> dict[str, Any]:
        """Return all of it."""
        return asdict(self) | {"error": self.error, "inside": self.inside}


def predict_run(one: LawFit, sizes: Mapping[str, float], seed: int = 0) -> Prediction:
    """Return a law's loss at some sizes, and the interval of a new run's loss.

    Two things move a new run: the law, as resampled runs would have given it, and what the law
    leaves of each run (seeds, and what its form misses), as its residuals show. One of each is
    drawn together (Davison and Hinkley 1997, Bootstrap Methods and their Application, 6.3.3);
    residuals are widened by the coefficients they were fitted with.
    """
    law = one.fit.law
    columns = {name: np.array([sizes[name]]) for name in law.columns}
    curves = np.log(predicted(law, columns, coefficient_rows(one.fitted))[:, 0])
    center, resampled = float(curves[0]), curves[1:][np.isfinite(curves[1:])]
    residuals = one.fit.residuals - one.fit.residuals.mean()
    count, coefficients = residuals.size, len(law.coefficients)
    residuals = residuals * np.sqrt(count / (count - coefficients))
    drawn = np.random.default_rng(seed).choice(residuals, (resampled.size, DRAWS))
    tails = np.percentile(resampled[:, None] - drawn, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    low, high = np.exp(tails)
    return Prediction(float(np.exp(center)), float(low), float(high))


def outcomes(
    predictions: Mapping[int, Prediction], rows: Sequence[Mapping[str, Any]]
) -> list[Outcome]:
    """Return predictions, by their number of experts, beside the runs' results."""
    found = []
    for experts, prediction in predictions.items():
        runs = [row for row in rows if row["experts"] == experts]
        sizes = {name: float(runs[0][name]) for name in _SIZES}
        losses = tuple(float(row["loss"]) for row in runs)
        found.append(Outcome(experts=experts, predicted=prediction, measured=losses, **sizes))
    return found


def root_mean_squared_error(
    one: LawFit, columns: Mapping[str, FloatArray], losses: FloatArray
) -> float:
    """Return the error of a law's ln loss at runs it was not fitted to."""
    found = own_losses(one.fit, columns)
    return float(np.sqrt(np.mean((np.log(found) - np.log(losses)) ** 2)))
