"""Ludziejewski et al. 2025, Joint MoE Scaling Laws (arXiv 2502.05172)."""

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


def _terms(columns: Columns, values: Values) -> tuple[Any, ...]:
    knee = np.log(saturated(columns["experts"], values["E_start"], values["E_max"]))
    size, tokens = np.log(columns["active_parameters"]), np.log(columns["tokens"])
    return (
        1.0,
        np.exp(values["delta"] * knee + (values["alpha"] + values["gamma"] * knee) * size),
        np.exp(values["omega"] * knee + (values["beta"] + values["zeta"] * knee) * tokens),
    )


def per_experts(experts: float, values: Values) -> dict[str, float]:
    """Return m, mu, n, nu of L = m N^mu + n D^nu + c at one number of experts (table 4)."""
    knee = float(saturated(experts, values["E_start"], values["E_max"]))
    return {
        "m": values["a"] * knee ** values["delta"],
        "mu": values["alpha"] + values["gamma"] * float(np.log(knee)),
        "n": values["b"] * knee ** values["omega"],
        "nu": values["beta"] + values["zeta"] * float(np.log(knee)),
    }


LUDZIEJEWSKI = Law(
    name="ludziejewski",
    title="Ludziejewski et al. 2025 (joint MoE)",
    formula="L = c + a E^^delta N^(alpha + gamma ln E^) + b E^^omega D^(beta + zeta ln E^), "
    "E^ as Clark et al.",
    source="arXiv 2502.05172, table 3",
    conventions=Conventions(
        size=Size.ACTIVE,
        embeddings=Embeddings.IN,
        logarithm=Logarithm.NATURAL,
        sparsity=Sparsity.EXPERTS,
        flops=SIX_N_D,
    ),
    columns=("active_parameters", "tokens", "experts"),
    linear=(Linear(name="c"), Linear(name="a"), Linear(name="b")),
    nonlinear=(
        Nonlinear(name="alpha", seeds=(-0.5, -0.3, -0.18, -0.08), low=-2, high=0),
        Nonlinear(name="beta", seeds=(-0.5, -0.3, -0.18, -0.08), low=-2, high=0),
        Nonlinear(name="delta", seeds=(-0.6, -0.2, 0.2), low=-5, high=5),
        Nonlinear(name="omega", seeds=(-0.5, 0.0, 0.5), low=-8, high=8),
        Nonlinear(name="gamma", seeds=(-0.01, 0.01, 0.03), low=-0.5, high=0.5),
        Nonlinear(name="zeta", seeds=(-0.03, -0.01, 0.01), low=-0.5, high=0.5),
        Nonlinear(name="E_start", seeds=(1.3, 2.0), low=1.0001, high=64, log=True),
        Nonlinear(name="E_max", seeds=(300.0,), low=33, high=1e6, log=True),
    ),
    terms=_terms,
    published=(
        Published(
            name="ludziejewski-2025",
            source="arXiv 2502.05172, table 3",
            values={
                "c": 1.3637,
                "a": 35.91,
                "b": 35.98,
                "alpha": -0.1889,
                "beta": -0.1775,
                "delta": -0.2285,
                "omega": 0.5529,
                "gamma": 0.0098,
                "zeta": -0.0259,
                "E_start": 2.0732,
                "E_max": 290.4521,
            },
            checked="primary",
            ranges={"active_parameters": (0.0, 2.7e9), "experts": (1, 32)},
        ),
    ),
    space=Space(
        size="active_parameters",
        active=lambda columns: columns["active_parameters"],
        dials={"experts": (1, 2, 4, 8, 16, 32)},
    ),
    notes=(
        "Two of three secondary copies have the signs of delta, omega, gamma and zeta flipped:"
        " more experts then make the loss worse.",
        "E_max is rarely identified, even by the paper's own design.",
    ),
)
