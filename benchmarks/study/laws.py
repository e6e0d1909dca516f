"""The study's laws: Chinchilla's form for each number of experts, and laws of all runs together."""

from collections.abc import Mapping

import numpy as np

from benchmarks.laws.compare import LawFit, fit_law_to, fit_laws
from benchmarks.laws.points import Points

FORM = "E + A / active_parameters**alpha + B / tokens**beta"
"""Of one number of experts: Hoffmann et al. 2022 (arXiv 2203.15556) in active parameters."""
TOGETHER = (
    "E + A / (active_parameters**alpha * experts**kappa) + B / tokens**beta",
    "ludziejewski",
    "abnar",
    "chinchilla",
)
"""Of all runs: experts as a factor of the first term, and published forms."""
LEAST_BUDGETS = 2
"""Of fewer, a law cannot tell size from tokens: one follows from the other."""


def experts_of(points: Points) -> list[int]:
    """Return the numbers of experts that ran at enough budgets for a law of their own."""
    experts, budgets = points.columns["experts"], np.log(points.columns["flops"]).round(1)
    return [
        int(n) for n in np.unique(experts) if np.unique(budgets[experts == n]).size >= LEAST_BUDGETS
    ]


def fit_apart(points: Points) -> dict[int, LawFit]:
    """Return a law for each number of experts that can have one."""
    experts = points.columns["experts"]
    return {
        n: fit_law_to(points.take(np.flatnonzero(experts == n).tolist()), FORM, resamples=None)
        for n in experts_of(points)
    }


def fit_together(points: Points) -> list[LawFit]:
    """Return the laws of all runs."""
    return fit_laws(points, TOGETHER, resamples=None)


def law_rows(fits: Mapping[int, LawFit]) -> list[dict[str, object]]:
    """Return what the document says of laws that were fitted apart."""
    kept = ("law", "points", "coefficients", "intervals", "profile_intervals", "unidentified",
            "residuals", "extrapolation")  # fmt: skip
    return [{"experts": n, **{k: fit.document[k] for k in kept}} for n, fit in fits.items()]
