"""Kumar et al. 2024, Scaling Laws for Precision (arXiv 2411.04330): fewer bits, a smaller model."""

from typing import Any

import numpy as np

from benchmarks.laws.conventions import SIX_N_D, Conventions, Embeddings, Size
from benchmarks.laws.law import Columns, Law, Linear, Nonlinear, Space, Values, grid, power


def effective_parameters(parameters: Any, bits: Any, gamma: Any) -> Any:
    """Return N_eff = N (1 - e^(-P / gamma)) of N parameters trained in P bits."""
    return parameters * (1 - np.exp(-bits / gamma))


def _terms(columns: Columns, values: Values) -> tuple[Any, ...]:
    size = effective_parameters(columns["parameters"], columns["bits"], values["gamma"])
    return 1.0, power(size, -values["alpha"]), power(columns["tokens"], -values["beta"])


PRECISION = Law(
    name="precision",
    title="Kumar et al. 2024 (precision of training, as FP8)",
    formula="L = E + A / (N (1 - e^(-P/gamma)))^alpha + B / D^beta",
    source="arXiv 2411.04330, with one precision P for weights",
    conventions=Conventions(size=Size.TOTAL, embeddings=Embeddings.NOT_STATED, flops=SIX_N_D),
    columns=("parameters", "tokens", "bits"),
    linear=(Linear(name="E"), Linear(name="A"), Linear(name="B")),
    nonlinear=(
        Nonlinear(name="alpha", seeds=grid(0.04, 1.0, 13), low=0, high=3),
        Nonlinear(name="beta", seeds=grid(0.04, 1.0, 13), low=0, high=3),
        Nonlinear(name="gamma", seeds=(0.5, 1.0, 2.0, 4.0, 8.0), low=0.05, high=100, log=True),
    ),
    terms=_terms,
    space=Space(
        size="parameters",
        active=lambda columns: columns["parameters"],
        dials={"bits": (8.0, 16.0)},
    ),
    notes=(
        "No published coefficients are shipped: fit them.",
        "FLOPs count alike in every precision; what fewer bits save is time, not FLOPs.",
    ),
)
