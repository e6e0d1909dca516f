"""Hoffmann et al. 2022 (arXiv 2203.15556), and its refit by Besiroglu et al. 2024."""

from typing import Any

from benchmarks.laws.conventions import SIX_N_D, Conventions, Embeddings, Size
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

RUNS = {"parameters": (7e7, 1.6e10), "tokens": (5e9, 5e11)}
"""Of Hoffmann et al.'s runs, by their abstract."""


def _terms(columns: Columns, values: Values) -> tuple[Any, ...]:
    return (
        1.0,
        power(columns["parameters"], -values["alpha"]),
        power(columns["tokens"], -values["beta"]),
    )


CHINCHILLA = Law(
    name="chinchilla",
    title="Hoffmann et al. 2022 (Chinchilla)",
    formula="L = E + A / N^alpha + B / D^beta",
    source="arXiv 2203.15556, approach 3; refit: Besiroglu et al. 2024, arXiv 2404.10102",
    conventions=Conventions(size=Size.TOTAL, embeddings=Embeddings.IN, flops=SIX_N_D),
    columns=("parameters", "tokens"),
    linear=(Linear(name="E"), Linear(name="A"), Linear(name="B")),
    nonlinear=(
        Nonlinear(name="alpha", seeds=grid(0.02, 1.22, 31), low=0.0, high=3.0),
        Nonlinear(name="beta", seeds=grid(0.02, 1.22, 31), low=0.0, high=3.0),
    ),
    terms=_terms,
    published=(
        Published(
            name="besiroglu-2024",
            source="arXiv 2404.10102 (Epoch AI), in effect a least-absolute-deviations fit",
            values={"E": 1.81686, "A": 482.01, "B": 2085.43, "alpha": 0.34781, "beta": 0.36585},
            checked="primary",
            ranges=RUNS,
        ),
        Published(
            name="hoffmann-2022",
            source="arXiv 2203.15556, approach 3, as printed",
            values={"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28},
            checked="primary",
            ranges=RUNS,
        ),
        Published(
            name="huber-refit",
            source="Hoffmann's own objective (Huber 1e-3 on log L) on Besiroglu's 240 points",
            values={"E": 1.81722, "A": 477.83, "B": 2143.42, "alpha": 0.34731, "beta": 0.36717},
            checked="primary",
            ranges=RUNS,
        ),
    ),
    space=Space(size="parameters", active=lambda columns: columns["parameters"]),
    notes=("Dense models: the law has no term for experts.",),
)
