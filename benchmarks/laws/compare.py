"""`moe fit`: one law on points, or several on the same points beside each other."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.errors import BenchmarkError
from benchmarks.laws.fit_document import fit_document
from benchmarks.laws.fitting.bootstrap import bootstrap
from benchmarks.laws.fitting.fit import fit_law
from benchmarks.laws.fitting.penalty import find_penalty
from benchmarks.laws.law_columns import law_points
from benchmarks.laws.points import Points
from benchmarks.laws.registry import find_law


def fit_points(
    points: Points, law_name: str, loss: str = "huber", *, seed: int = 0, resamples: int | None
) -> dict[str, Any]:
    """Return the document of one law's fit.

    Raises:
        BenchmarkError: The law, a column, a value or the number of points is wrong.
    """
    law, penalty = find_law(law_name), find_penalty(loss)
    brought = law_points(law, points)
    with np.errstate(all="ignore"):  # starts may overflow: their loss is infinite then
        fit = fit_law(law, brought, penalty)
        found = bootstrap(fit, seed, resamples)
        return fit_document(fit, found, points.source, brought.warnings)


def compare_laws(
    points: Points,
    law_names: Sequence[str],
    loss: str = "huber",
    *,
    seed: int = 0,
    resamples: int | None,
) -> dict[str, Any]:
    """Return the documents of several laws on the same points, and their comparison.

    AICc says which law describes the points best for its number of coefficients, the errors at the
    largest scale and the sparsest models left out, which one extrapolates.

    Raises:
        BenchmarkError: As `fit_points`, or laws of different targets.
    """
    targets = {find_law(name).target for name in law_names}
    if len(targets) > 1:
        raise BenchmarkError(f"laws of {' and of '.join(sorted(targets))}: they do not compare")
    fits = [fit_points(points, name, loss, seed=seed, resamples=resamples) for name in law_names]
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
    return {"points": len(points), "loss": loss, "comparison": rows, "fits": fits}


def _outermost(fit: dict[str, Any], kind: str) -> float | None:
    left_out = fit["extrapolation"][kind]
    return None if left_out is None else float(left_out["outermost"]["rms_log_error"])
