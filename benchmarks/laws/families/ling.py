"""Ling team 2025, Towards Greater Leverage (arXiv 2507.17702): efficiency leverage."""

from typing import Any

import numpy as np

from benchmarks.laws.conventions import (
    Conventions,
    Embeddings,
    Granularity,
    Logarithm,
    Size,
    Sparsity,
)
from benchmarks.laws.families.saturation import saturated
from benchmarks.laws.law import Columns, Law, Linear, Nonlinear, Published, Values


def _terms(columns: Columns, values: Values) -> tuple[Any, ...]:
    ratio = saturated(columns["activation_ratio"] + 1, values["A_start"], values["A_max"])
    compute, cut = np.log10(columns["flops"]), np.log2(columns["hidden_granularity"])
    knee = np.log(ratio)  # ln of A^ to a power is that power times ln A^
    return knee, knee * compute, knee * cut**2, knee * cut


def best_granularity(values: Values) -> float:
    """Return the granularity of the highest leverage, 2^(-beta / (2 gamma))."""
    return float(2 ** (-values["beta"] / (2 * values["gamma"])))


LING = Law(
    name="ling",
    title="Ling team 2025 (efficiency leverage)",
    formula="EL = A^^(a + d log10 C + gamma (log2 G)^2 + beta log2 G), "
    "1/A^ = 1/(A + (1/A_start - 1/A_max)^-1) + 1/A_max",
    source="arXiv 2507.17702",
    conventions=Conventions(
        size=Size.NONE,
        embeddings=Embeddings.NOT_STATED,
        logarithm=Logarithm.TEN_AND_TWO,
        granularity=Granularity.HIDDEN,
        sparsity=Sparsity.ACTIVATION_RATIO,
        flops="training FLOPs with attention and LM head, 3 x the forward pass",
    ),
    columns=("activation_ratio", "hidden_granularity", "flops"),
    linear=tuple(Linear(name=name, positive=False) for name in ("a", "d", "gamma", "beta")),
    nonlinear=(
        Nonlinear(name="A_start", seeds=(0.003, 0.016, 0.05), low=1e-6, high=0.9, log=True),
        Nonlinear(name="A_max", seeds=(2.0, 100.0, 1e8), low=1, high=1e18, log=True),
    ),
    terms=_terms,
    logarithmic=True,
    target="leverage",
    published=(
        Published(
            name="ling-2025",
            source="arXiv 2507.17702",
            values={
                "a": 1.23,
                "d": -7.61e-2,
                "gamma": 1.67e-2,
                "beta": -1.17e-1,
                "A_start": 1.63e-2,
                "A_max": 5.28e16,
            },
            checked="primary",
        ),
    ),
    notes=(
        "EL = FLOPs of a dense model over those of the sparse one of equal loss: no loss itself.",
        "The paper states no bases; only log10 C and log2 G reproduce its text (ln: 5,330 x).",
        "It predicts no sizes: no term tells how FLOPs are split between parameters and tokens, and"
        " the sparsest ratio always wins.",
    ),
)
