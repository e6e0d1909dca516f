"""Points made from laws with known coefficients."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.laws.law import Law
from benchmarks.laws.points import Points
from benchmarks.laws.registry import LAWS

SIZES = tuple(np.geomspace(4e7, 1.1e9, 5))
TOKENS = tuple(np.geomspace(1e9, 3e10, 9))
DESIGNS: dict[str, dict[str, Sequence[float]]] = {
    "chinchilla": {"parameters": SIZES, "tokens": TOKENS},
    "clark": {"active_parameters": SIZES, "experts": (1, 2, 4, 8, 32, 64, 128, 512, 2048)},
    "krajewski": {
        "parameters": np.geomspace(1e9, 1e11, 6),
        "tokens": np.geomspace(8e9, 1.3e11, 6),
        "granularity": (1, 2, 4, 8, 16),
    },
    "ludziejewski": {
        "active_parameters": SIZES,
        "tokens": TOKENS,
        "experts": (1, 2, 4, 8, 16, 32),
    },
    "abnar": {
        "parameters": np.geomspace(1e8, 1e10, 6),
        "tokens": np.geomspace(2e9, 1e11, 6),
        "sparsity": (0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98),
    },
    "ling": {
        "activation_ratio": (0.008, 0.016, 0.03, 0.06, 0.12, 0.25, 0.5, 1),
        "hidden_granularity": (2, 4, 6, 8, 12, 16),
        "flops": np.geomspace(2e18, 6e20, 6),
    },
    "tencent": {
        "parameters": np.geomspace(1e9, 1e11, 4),
        "active_parameters": np.geomspace(3e7, 8e8, 4),
        "tokens": np.geomspace(2e9, 1e11, 4),
        "active_experts": (1, 4, 8, 16),
        "shared_ratio": (0, 0.2, 0.5),
    },
    "precision": {
        "parameters": SIZES,
        "tokens": TOKENS[::2],
        "bits": (3, 4, 6, 8, 16),
    },
}
"""Grids of the laws' columns, near those of the papers."""

PRECISION = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37, "gamma": 2.6}
"""No coefficients of this law are shipped: these are made up."""


def true_values(law: Law) -> Mapping[str, float]:
    """Return the coefficients from which `made_points` makes a law's target."""
    return law.published[0].values if law.published else PRECISION


def made_points(
    name: str,
    noise: float = 0.0,
    seed: int = 0,
    design: Mapping[str, Sequence[float]] | None = None,
) -> Points:
    """Return points of a law at its published coefficients, with normal noise of ln L."""
    law = LAWS[name]
    grid = design or DESIGNS[name]
    rows = np.array(list(itertools.product(*grid.values())), dtype=float).T
    columns = dict(zip(grid, rows, strict=True))
    exact = law.predict(columns, true_values(law))
    drawn = np.random.default_rng(seed).standard_normal(exact.size)
    columns[law.target] = exact * np.exp(noise * drawn)
    return Points("made", columns, {}, tuple(range(2, exact.size + 2)))


def write_csv(points: Points, path: Path) -> Path:
    """Write points as CSV; returns its path."""
    names = list(points.columns)
    rows = zip(*points.columns.values(), strict=True)
    lines = [",".join(names), *(",".join(repr(float(v)) for v in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
