"""Abnar et al. 2025, Parameters vs FLOPs (arXiv 2501.12370)."""

from typing import Any

from benchmarks.laws.conventions import SIX_N_D, Conventions, Embeddings, Size, Sparsity
from benchmarks.laws.law import Columns, Law, Linear, Nonlinear, Published, Space, Values, power


def _terms(columns: Columns, values: Values) -> tuple[Any, ...]:
    size, density = columns["parameters"], 1 - columns["sparsity"]
    return (
        1.0,
        power(size, -values["alpha"]),
        power(columns["tokens"], -values["beta"]),
        power(density, -values["lambda"]),
        power(density, -values["delta"]) * power(size, -values["gamma"]),
    )


ABNAR = Law(
    name="abnar",
    title="Abnar et al. 2025 (parameters vs FLOPs)",
    formula="L = e + a / N^alpha + b / D^beta + c / (1-S)^lambda + d / ((1-S)^delta N^gamma)",
    source="arXiv 2501.12370; coefficients by two secondary sources",
    conventions=Conventions(
        size=Size.TOTAL,
        embeddings=Embeddings.NOT_STATED,
        sparsity=Sparsity.SPARSITY,
        flops=f"{SIX_N_D}; active = total x (1 - S), which counts attention as sparse",
    ),
    columns=("parameters", "tokens", "sparsity"),
    linear=tuple(Linear(name=name) for name in "eabcd"),
    nonlinear=(
        Nonlinear(name="alpha", seeds=(0.15, 0.3, 0.45, 0.6, 0.8), low=0, high=3),
        Nonlinear(name="beta", seeds=(0.15, 0.3, 0.4, 0.5, 0.8), low=0, high=3),
        Nonlinear(name="lambda", seeds=(-0.5, -0.17, 0.05, 0.2), low=-3, high=3),
        Nonlinear(name="delta", seeds=(-0.3, 0.05, 0.16, 0.4), low=-3, high=3),
        Nonlinear(name="gamma", seeds=(0.05, 0.16, 0.3, 0.5), low=0, high=3),
    ),
    terms=_terms,
    published=(
        Published(
            name="abnar-2025",
            source="arXiv 2501.12370, by two secondary sources",
            values={
                "e": 0.94,
                "a": 16612.5,
                "b": 5455.67,
                "c": 0.4598,
                "d": 17.26,
                "alpha": 0.5962,
                "beta": 0.3954,
                "lambda": -0.1666,
                "delta": 0.1603,
                "gamma": 0.1595,
            },
            checked="secondary",
        ),
    ),
    space=Space(
        size="parameters",
        active=lambda columns: columns["parameters"] * (1 - columns["sparsity"]),
        dials={"sparsity": (0.0, 0.25, 0.5, 0.75, 0.9, 0.95)},
    ),
    notes=("R^2 is 99 % where it was fitted and 68 % at a held-out S = 0.98 (the paper).",),
)
