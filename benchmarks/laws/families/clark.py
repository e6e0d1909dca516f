"""Clark et al. 2022, Unified Scaling Laws for Routed Language Models (arXiv 2202.01169)."""

import math
from typing import Any

import numpy as np

from benchmarks.laws.conventions import (
    SIX_N_D,
    Conventions,
    Embeddings,
    Logarithm,
    Size,
    Sparsity,
)
from benchmarks.laws.families.saturation import saturated
from benchmarks.laws.law import Columns, Law, Linear, Nonlinear, Published, Space, Values

TOKENS = 130e9
"""Every run of the paper saw as many; the law has no term for them."""


def _terms(columns: Columns, values: Values) -> tuple[Any, ...]:
    size = np.log10(columns["active_parameters"])
    experts = np.log10(saturated(columns["experts"], values["E_start"], values["E_max"]))
    ln10 = math.log(10)  # the sum is ln L; the coefficients are those of log10 L
    return size * ln10, experts * ln10, size * experts * ln10, ln10


def effective_parameters(active_parameters: float, experts: float, values: Values) -> float:
    """Return the effective parameter count: a dense model's size of equal loss."""

    def slope(effective: float) -> float:
        return float(values["a"] + values["c"] * math.log10(effective))

    start = values["E_start"]
    knee = float(saturated(experts, start, values["E_max"]))
    return float(
        active_parameters ** (slope(knee) / slope(start))
        * (knee / start) ** (values["b"] / slope(start))
    )


CLARK = Law(
    name="clark",
    title="Clark et al. 2022 (routed language models)",
    formula="log10 L = a log10 N + b log10 E^ + c log10 N log10 E^ + d, "
    "1/E^ = 1/(E - 1 + (1/E_start - 1/E_max)^-1) + 1/E_max",
    source="arXiv 2202.01169, table 3",
    conventions=Conventions(
        size=Size.ACTIVE,
        embeddings=Embeddings.NOT_STATED,
        logarithm=Logarithm.TEN,
        sparsity=Sparsity.EXPERTS,
        flops=f"{SIX_N_D}, of which there are 130e9",
    ),
    columns=("active_parameters", "experts"),
    linear=tuple(Linear(name=name, positive=False) for name in "abcd"),
    nonlinear=(
        Nonlinear(name="E_start", seeds=(1.1, 1.5, 2, 3, 5), low=1.0001, high=64, log=True),
        Nonlinear(name="E_max", seeds=(100, 200, 400, 1e3, 1e4), low=65, high=1e7, log=True),
    ),
    terms=_terms,
    logarithmic=True,
    published=(
        Published(
            name="s-base-2022",
            source="arXiv 2202.01169, table 3, S-BASE",
            values={
                "a": -0.082,
                "b": -0.108,
                "c": 0.009,
                "d": 1.104,
                "E_start": 1.847,
                "E_max": 314.478,
            },
            checked="secondary",
        ),
    ),
    space=Space(
        size="active_parameters",
        active=lambda columns: columns["active_parameters"],
        dials={"experts": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)},
        fixed_tokens=TOKENS,
    ),
    notes=("Fixed 130e9 tokens: nothing is said about other budgets of data.",),
)
