"""Where descents start: a grid of the nonlinear coefficients, the linear ones solved inside.

Variable projection (Golub & Pereyra 1973): for given exponents a law is linear, and its other
coefficients follow by non-negative least squares in relative errors, for all grid points at once.
"""

import itertools

import numpy as np

from benchmarks.laws.fitting.descent import CHUNK, costs, plain_data
from benchmarks.laws.fitting.penalty import Penalty
from benchmarks.laws.fitting.problem import Problem
from benchmarks.laws.law import FloatArray

MAX_POINTS = 300
"""Points that the grid looks at; of more, evenly many over the file are taken."""
SWEEPS = 60


def seed_vectors(problem: Problem, penalty: Penalty, keep: int) -> FloatArray:
    """Return the `keep` best vectors [keep, P] of the grid, best first."""
    seen = problem.thinned(MAX_POINTS)
    thetas = _grid(problem)
    wide = penalty.smoothed(0.01)  # far from the optimum the shape of the loss near 0 is noise
    step = max(1, CHUNK // seen.target.size)
    vectors, losses = [], []
    for first in range(0, len(thetas), step):
        theta = thetas[first : first + step]
        part = np.concatenate([_linear(seen, theta), theta], axis=1)
        vectors.append(part)
        losses.append(costs(seen, wide, plain_data(seen), part))
    found, loss = np.concatenate(vectors), np.concatenate(losses)
    best = found[np.argsort(loss, kind="stable")[:keep]]
    return best if seen is problem else problem.vector(seen.coefficients(best))


def _grid(problem: Problem) -> FloatArray:
    axes = [
        [float(np.log(seed)) if c.log else float(seed) for seed in c.seeds]
        for c in problem.law.nonlinear
    ]
    return np.array(list(itertools.product(*axes)), dtype=float)


def _linear(problem: Problem, theta: FloatArray) -> FloatArray:
    """Return linear coefficients [B, m], scaled, by (non-negative) least squares."""
    with np.errstate(all="ignore"):
        terms, _, offset = problem.basis(theta)
        wanted = np.log(problem.target) if problem.law.logarithmic else problem.target
        relative = np.ones_like(wanted) if problem.law.logarithmic else 1 / problem.target
        design = np.nan_to_num(terms * relative)
        gram = np.matmul(design, np.swapaxes(design, 1, 2))
        right = (design * ((wanted - offset) * relative)[..., None, :]).sum(axis=-1)
    size = gram.shape[-1]
    if size == 0:
        return np.zeros((len(theta), 0))
    diagonal = np.einsum("bmm->bm", gram)
    ridge = 1e-12 * np.maximum(diagonal.max(axis=1), 1e-300)[:, None, None] * np.eye(size)
    found = np.linalg.solve(gram + ridge, np.nan_to_num(right)[..., None])[..., 0]
    low = problem.low[:size]
    if np.all(np.isinf(low)) or bool((found >= low).all()):
        return np.asarray(found)
    found = np.maximum(found, low)
    for _ in range(SWEEPS):  # coordinate descent on the quadratic, within the bounds
        for number in range(size):
            slope = right[:, number] - np.einsum("bm,bm->b", gram[:, number], found)
            moved = found[:, number] + slope / np.maximum(diagonal[:, number], 1e-300)
            found[:, number] = np.maximum(moved, low[number])
    return np.asarray(found)
