"""Damped Gauss-Newton (Levenberg-Marquardt) on a robust loss, many fits at once.

Legend: as in problem.py. Robust weights are those of iterated least squares, which majorize the
loss: every accepted step lowers it. Bounds are kept by holding coefficients that push against them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.laws.fitting.penalty import Penalty
from benchmarks.laws.fitting.problem import Problem
from benchmarks.laws.law import FloatArray

MAX_DAMPING = 1e12
CHUNK = 30_000
"""Fits x points computed at once: their slopes stay in a processor's cache."""


@dataclass(frozen=True)
class Data:
    """What the fits see."""

    target_log: FloatArray
    """ln of the target, [n] or [B, n]."""
    weights: FloatArray
    """[n] or [B, n]; a bootstrap counts points several times or not at all."""
    fixed: NDArray[np.bool_] | None = None
    """[B, P]: coefficients that stay."""

    def rows(self, index: NDArray[np.intp]) -> "Data":
        """Return what some of the fits see."""
        fixed = None if self.fixed is None else self.fixed[index]
        return Data(_rows(self.target_log, index), _rows(self.weights, index), fixed)


def _rows(array: FloatArray, index: NDArray[np.intp]) -> FloatArray:
    return array if array.ndim == 1 else array[index]


def plain_data(problem: Problem) -> Data:
    """Return every point once."""
    return Data(np.log(problem.target), np.ones(problem.target.size))


def costs(problem: Problem, penalty: Penalty, data: Data, vectors: FloatArray) -> FloatArray:
    """Return the weighted loss [B] of vectors [B, P]; infinite where a prediction is not."""
    with np.errstate(all="ignore"):
        residuals = problem.log_predicted(vectors) - data.target_log
        total = (penalty.cost(residuals) * data.weights).sum(axis=-1)
    return np.where(np.isfinite(total), total, np.inf)


def descend(
    problem: Problem,
    penalty: Penalty,
    data: Data,
    starts: FloatArray,
    iterations: int,
    tolerance: float = 0.0,
) -> tuple[FloatArray, FloatArray]:
    """Return vectors [B, P] of locally least loss, and their losses [B].

    Args:
        problem: The law at the points.
        penalty: The loss.
        data: What the fits see.
        starts: Vectors [B, P].
        iterations: At most so many steps.
        tolerance: A fit ends after three steps that each lower its loss by less.
    """
    step = max(1, CHUNK // max(1, problem.target.size))
    parts = [
        _descend(problem, penalty, data.rows(index), starts[index], iterations, tolerance)
        for index in np.split(np.arange(len(starts)), range(step, len(starts), step))
    ]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _descend(  # noqa: PLR0913 - as descend
    problem: Problem,
    penalty: Penalty,
    data: Data,
    starts: FloatArray,
    iterations: int,
    tolerance: float,
) -> tuple[FloatArray, FloatArray]:
    vectors = np.clip(starts, problem.low, problem.high)
    loss = costs(problem, penalty, data, vectors)
    damping = np.full(len(vectors), 1e-3)
    stalled = np.zeros(len(vectors), dtype=int)
    active = np.flatnonzero(np.isfinite(loss))
    for _ in range(iterations):
        if not active.size:
            break
        seen = data.rows(active)
        new = _step(problem, penalty, seen, vectors[active], damping[active])
        new_loss = costs(problem, penalty, seen, new)
        better = new_loss < loss[active]
        little = loss[active] - new_loss < np.maximum(tolerance, 1e-9 * loss[active])
        vectors[active[better]], loss[active[better]] = new[better], new_loss[better]
        damping[active] = np.where(better, damping[active] * 0.2, damping[active] * 8)
        damping = np.maximum(damping, 1e-12)
        stalled[active] = np.where(better & little, stalled[active] + 1, 0)
        active = active[(stalled[active] < 3) & (damping[active] < MAX_DAMPING)]
    return vectors, loss


def _step(
    problem: Problem, penalty: Penalty, data: Data, vectors: FloatArray, damping: FloatArray
) -> FloatArray:
    """Return where one damped step leads from vectors [B, P]."""
    with np.errstate(all="ignore"):
        logs, slopes = problem.with_slopes(vectors, exact=False)
        residuals = logs - data.target_log
        root = np.sqrt(penalty.weight(residuals) * data.weights)
        slopes *= root[..., None]
        gradient = np.einsum("bnp,bn->bp", slopes, residuals * root)
        curvature = np.matmul(np.swapaxes(slopes, 1, 2), slopes)
    held = ((vectors <= problem.low) & (gradient > 0)) | (
        (vectors >= problem.high) & (gradient < 0)
    )
    if data.fixed is not None:
        held |= data.fixed
    free = ~held
    curvature = np.nan_to_num(curvature, posinf=0, neginf=0) * (free[:, :, None] & free[:, None, :])
    gradient = np.nan_to_num(gradient, posinf=0, neginf=0) * free
    diagonal = np.einsum("bpp->bp", curvature)
    floor = 1e-14 * diagonal.max(axis=1, keepdims=True) + 1e-300
    ridge = damping[:, None] * np.maximum(diagonal, floor) + np.where(held, 1.0, floor)
    size = vectors.shape[1]
    system = curvature + ridge[:, :, None] * np.eye(size)
    scale = 1 / np.sqrt(np.einsum("bpp->bp", system))  # a unit diagonal: solvable at any unit
    scaled = system * scale[:, :, None] * scale[:, None, :]
    move = np.linalg.solve(scaled, (gradient * scale)[..., None])[..., 0] * scale
    return np.asarray(np.clip(vectors - move, problem.low, problem.high))
