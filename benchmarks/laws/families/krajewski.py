"""Krajewski et al. 2024, Scaling Laws for Fine-Grained Mixture of Experts (arXiv 2402.07871)."""

from typing import Any

from benchmarks.laws.conventions import (
    SIX_N_D,
    Conventions,
    Embeddings,
    Granularity,
    Size,
    krajewski_total_parameters,
)
from benchmarks.laws.law import (
    Columns,
    Law,
    Linear,
    Nonlinear,
    Published,
    Space,
    Values,
    grid,
    power,
)

EXPANSION_RATE = 64
"""Total over active feed-forward parameters of the paper's models: the law has no term for it."""


def _terms(columns: Columns, values: Values) -> tuple[Any, ...]:
    size = power(columns["parameters"], -values["alpha"])
    return (
        1.0,
        size,
        size * power(columns["granularity"], -values["gamma"]),
        power(columns["tokens"], -values["beta"]),
    )


KRAJEWSKI = Law(
    name="krajewski",
    title="Krajewski et al. 2024 (fine-grained MoE)",
    formula="L = c + (g / G^gamma + a) / N^alpha + b / D^beta",
    source="arXiv 2402.07871",
    conventions=Conventions(
        size=Size.TOTAL,
        embeddings=Embeddings.OUT,
        granularity=Granularity.FFN,
        flops=f"{SIX_N_D}; the paper adds the router's (d E G c_r), not counted here",
    ),
    columns=("parameters", "tokens", "granularity"),
    linear=(Linear(name="c"), Linear(name="a"), Linear(name="g"), Linear(name="b")),
    nonlinear=(
        Nonlinear(name="alpha", seeds=grid(0.03, 0.6, 12), low=0.0, high=3.0),
        Nonlinear(name="beta", seeds=grid(0.03, 0.6, 12), low=0.0, high=3.0),
        Nonlinear(name="gamma", seeds=(0.1, 0.3, 0.6, 1.0, 2.0), low=0.0, high=5.0),
    ),
    terms=_terms,
    published=(
        Published(
            name="krajewski-2024",
            source="arXiv 2402.07871, MoE, expansion rate 64",
            values={
                "c": 0.47,
                "a": 18.1,
                "g": 2.1,
                "b": 30.8,
                "alpha": 0.115,
                "beta": 0.147,
                "gamma": 0.58,
            },
            checked="primary",
        ),
    ),
    space=Space(
        size="parameters",
        active=lambda columns: (
            columns["parameters"] / krajewski_total_parameters(1.0, EXPANSION_RATE)
        ),
        dials={"granularity": (1, 2, 4, 8, 16)},
        expansions=(EXPANSION_RATE,),
    ),
    notes=(
        'N is all parameters without embeddings: 43 times the size in the paper\'s label "64 x".',
        "Without the router's cost finer experts always win: the finest candidate is chosen.",
        "Active parameters are N / 43, as for the paper's expansion rate of 64.",
    ),
)
