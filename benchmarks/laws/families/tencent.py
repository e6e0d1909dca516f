"""Zhao et al. 2025 (Tencent), Towards a Comprehensive Scaling Law of MoE (arXiv 2509.23678)."""

from typing import Any

from benchmarks.laws.conventions import SIX_N_D, Conventions, Embeddings, Size, Sparsity
from benchmarks.laws.law import Columns, Law, Linear, Nonlinear, Published, Space, Values, power

EXPANSIONS = (2, 4, 8, 16, 32)
"""Total over active parameters that are tried: the law is of sparse models."""


def _terms(columns: Columns, values: Values) -> tuple[Any, ...]:
    total, active = columns["parameters"], columns["active_parameters"]
    experts, shared = columns["active_experts"], columns["shared_ratio"]
    by_total, by_active = power(total, -values["alpha"]), power(active, -values["alpha"])
    architecture = by_total + values["k"] * by_active + values["h"] * active / total
    return (
        1.0,
        by_total,
        power(columns["tokens"], -values["beta"]),
        by_active,
        experts * architecture,
        architecture / experts,
        shared**2 * architecture,
        shared * architecture,
    )


TENCENT = Law(
    name="tencent",
    title="Zhao et al. 2025 (Tencent, comprehensive MoE law)",
    formula="L = (e G + f / G + m S^2 + n S) (1/N^alpha + k/N_a^alpha + h N_a/N)"
    " + a/N^alpha + b/D^beta + c/N_a^alpha + epsilon",
    source="arXiv 2509.23678, by a secondary source",
    conventions=Conventions(
        size=Size.BOTH,
        embeddings=Embeddings.NOT_STATED,
        sparsity=Sparsity.SHARED_AND_ACTIVE,
        flops=SIX_N_D,
    ),
    columns=("parameters", "active_parameters", "tokens", "active_experts", "shared_ratio"),
    linear=(
        *(Linear(name=name) for name in ("epsilon", "a", "b", "c", "e", "f", "m")),
        Linear(name="n", positive=False),
    ),
    nonlinear=(
        Nonlinear(name="alpha", seeds=(0.1, 0.17, 0.24, 0.35, 0.5), low=0, high=3),
        Nonlinear(name="beta", seeds=(0.2, 0.35, 0.47, 0.6, 0.8), low=0, high=3),
        Nonlinear(name="k", seeds=(1e-4, 1.3e-3, 0.02, 0.2), low=1e-9, high=1e3, log=True),
        Nonlinear(name="h", seeds=(1e-3, 0.01, 0.045, 0.2), low=1e-9, high=1e3, log=True),
    ),
    terms=_terms,
    published=(
        Published(
            name="tencent-2025",
            source="arXiv 2509.23678, by a secondary source",
            values={
                "epsilon": 1.8182,
                "a": 38.051,
                "b": 27129.05,
                "c": 31.096,
                "e": 0.1577,
                "f": 7.2446,
                "m": 5.1395,
                "n": -3.2363,
                "alpha": 0.2383,
                "beta": 0.4694,
                "k": 0.0013,
                "h": 0.0450,
            },
            checked="secondary",
        ),
    ),
    space=Space(
        size="active_parameters",
        active=lambda columns: columns["active_parameters"],
        dials={
            "expansion": EXPANSIONS,
            "active_experts": (1, 2, 4, 8, 16),
            "shared_ratio": (0.0, 0.125, 0.25, 0.375, 0.5),
        },
        derived={"parameters": lambda found: found["active_parameters"] * found["expansion"]},
        expansions=EXPANSIONS,
    ),
    notes=(
        "Whether G counts shared experts was not read in the paper itself; here it does.",
        "The sparsest candidate is chosen: by this law more total parameters never hurt. Candidates"
        " (total over active parameters of 2 to 32) are moescale's, not the paper's.",
    ),
)
