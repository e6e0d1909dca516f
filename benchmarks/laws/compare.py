"""`moe fit`: one law on points, or several on the same points beside each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.errors import BenchmarkError
from benchmarks.laws.fit_document import fit_document
from benchmarks.laws.fitted_law import FittedLaw
from benchmarks.laws.fitting.bootstrap import Resamples, bootstrap
from benchmarks.laws.fitting.fit import Fit, fit_law
from benchmarks.laws.fitting.penalty import find_penalty
from benchmarks.laws.law import FloatArray
from benchmarks.laws.law_columns import law_points
from benchmarks.laws.points import Points
from benchmarks.laws.quantities import derived
from benchmarks.laws.registry import find_law
from benchmarks.laws.residual_trends import Trend, residual_trends

SPARSE_COLUMNS = ("experts", "sparsity", "granularity")
"""Residuals and left-out groups are looked at along these too."""


@dataclass(frozen=True)
class LawFit:
    """A law fitted to points, with everything that is known of the fit."""

    fit: Fit
    resamples: Resamples
    trends: tuple[Trend, ...]
    document: dict[str, Any]

    @property
    def fitted(self) -> FittedLaw:
        """The law with its coefficients, as curves take it."""
        return FittedLaw(
            self.fit.law,
            self.fit.values,
            self.document["source"],
            np.array(self.document["resamples"], dtype=float).reshape(-1, len(self.fit.values)),
            {name: (low, high) for name, (low, high) in self.document["ranges"].items()},
            {name: tuple(values) for name, values in self.document["candidates"].items()},
            self.fit,
            self.document,
        )


def fit_law_to(
    points: Points, law_name: str, loss: str = "huber", *, seed: int = 0, resamples: int | None
) -> LawFit:
    """Fit one law.

    Raises:
        BenchmarkError: The law, a column, a value or the number of points is wrong.
    """
    law, penalty = find_law(law_name), find_penalty(loss)
    brought = law_points(law, points)
    with np.errstate(all="ignore"):  # starts may overflow: their loss is infinite then
        fit = fit_law(law, brought, penalty)
        found = bootstrap(fit, seed, resamples)
        others = _sparse_columns(points)
        trends = residual_trends({**fit.problem.columns, **others}, fit.residuals)
        document = fit_document(fit, found, trends, others, points.source, brought.warnings)
    return LawFit(fit, found, trends, document)


def _sparse_columns(points: Points) -> dict[str, FloatArray]:
    """Return what says how sparse the points are, whether or not a law has it."""
    found = {name: derived(name, points.columns) for name in SPARSE_COLUMNS}
    return {name: c for name, c in found.items() if c is not None and np.isfinite(c).all()}


def fit_laws(
    points: Points,
    law_names: Sequence[str],
    loss: str = "huber",
    *,
    seed: int = 0,
    resamples: int | None,
) -> list[LawFit]:
    """Fit several laws to the same points.

    Raises:
        BenchmarkError: As `fit_law_to`, or laws of different targets.
    """
    targets = {find_law(name).target for name in law_names}
    if len(targets) > 1:
        raise BenchmarkError(f"laws of {' and of '.join(sorted(targets))}: they do not compare")
    return [fit_law_to(points, name, loss, seed=seed, resamples=resamples) for name in law_names]


def comparison(laws: Sequence[LawFit]) -> dict[str, Any]:
    """Return the documents of fits to the same points, and their comparison.

    AICc says which law describes the points best for its number of coefficients, the errors at the
    largest scale and the sparsest models left out, which one extrapolates.
    """
    fits = [one.document for one in laws]
    known = [fit["aicc"] for fit in fits if fit["aicc"] is not None]
    rows = [
        {
            "law": fit["law"],
            "coefficients": len(fit["coefficients"]),
            "objective": fit["objective"],
            "rms_log": fit["residuals"]["rms_log"],
            "aicc": fit["aicc"],
            "delta_aicc": None if fit["aicc"] is None else fit["aicc"] - min(known),
            "largest_scale_rms_log": _outermost(fit, "scale"),
            "sparsest_rms_log": _outermost(fit, "sparsity"),
            "unidentified": fit["unidentified"],
        }
        for fit in fits
    ]
    rows.sort(key=lambda row: (row["delta_aicc"] is None, row["delta_aicc"]))
    first = fits[0]
    return {"points": first["points"], "loss": first["loss"], "comparison": rows, "fits": fits}


def _outermost(fit: dict[str, Any], kind: str) -> float | None:
    left_out = fit["extrapolation"][kind]
    return None if left_out is None else float(left_out["outermost"]["rms_log_error"])
