"""Runs of a law with known coefficients, at equal FLOPs of several budgets."""

import numpy as np

from benchmarks.laws.compare import LawFit, fit_law_to
from benchmarks.laws.points import Points
from benchmarks.study.ladder_curve import Ladder
from benchmarks.study.laws import FORM

TRUTH = {"E": 1.5, "A": 40.0, "B": 60.0, "alpha": 0.35, "beta": 0.3}
BUDGETS = (2e11, 7e11, 2.4e12)
SIZES = np.geomspace(2e4, 2e5, 5)
LADDER = Ladder(np.geomspace(1e3, 1e7, 400), 6 * np.geomspace(1e3, 1e7, 400))


def losses_of(active: np.ndarray, tokens: np.ndarray, gain: float = 1.0) -> np.ndarray:
    """Return losses by the law of a model that counts as `gain` times its size and tokens."""
    t = TRUTH
    size, data = t["A"] / (gain * active) ** t["alpha"], t["B"] / (gain * tokens) ** t["beta"]
    return np.asarray(t["E"] + size + data)


def made_points(noise: float, seed: int, gain: float = 1.0, experts: int = 1) -> Points:
    """Return two runs a size and budget, with noise of ln loss."""
    pairs = [(n, c / (6 * n)) for c in BUDGETS for n in SIZES for _ in range(2)]
    active, tokens = np.array(pairs).T
    random = np.random.default_rng(seed)
    loss = losses_of(active, tokens, gain) * np.exp(random.normal(0, noise, active.size))
    columns = {
        "active_parameters": active,
        "parameters": active * experts,
        "tokens": tokens,
        "flops": 6 * active * tokens,
        "experts": np.full(active.size, float(experts)),
        "loss": loss,
    }
    return Points("made", columns, {"embeddings": "in"}, tuple(range(active.size)))


def made_law(noise: float, seed: int, gain: float = 1.0) -> LawFit:
    """Return the law fitted to such runs."""
    return fit_law_to(made_points(noise, seed, gain), FORM, resamples=60)
