"""A law on points as a function of one vector: scaled linear coefficients, then the searched ones.

Legend: B fits at once, n points, m linear and k nonlinear coefficients, P = m + k.

A term is divided by its root mean square over the points, and its coefficient is multiplied by it:
A / N^alpha becomes u (N / N0)^-alpha in effect. That takes out most of the correlation between A
and alpha, for which five-dimensional fits of Chinchilla's law are known to be ill-conditioned.
"""

from typing import Any

import numpy as np

from benchmarks.laws.law import Columns, FloatArray, Law

_STEP = 1e-30
_REAL_STEP = 1e-7


class Problem:
    """A law at given points."""

    def __init__(self, law: Law, columns: Columns, target: FloatArray) -> None:
        self.law, self.columns, self.target = law, columns, target
        self.num_linear, self.num_nonlinear = len(law.linear), len(law.nonlinear)
        self._log = np.array([c.log for c in law.nonlinear], dtype=bool)
        low = [0.0 if c.positive else -np.inf for c in law.linear]
        self.low = np.array(low + [_scaled(c.low, c.log) for c in law.nonlinear])
        high = [_scaled(c.high, c.log) for c in law.nonlinear]
        self.high = np.array([np.inf] * len(law.linear) + high)

    @property
    def num_coefficients(self) -> int:
        """P."""
        return self.num_linear + self.num_nonlinear

    def thinned(self, count: int) -> "Problem":
        """Return the problem at no more than `count` points, evenly many over the targets."""
        points = self.target.size
        if points <= count:
            return self
        order = np.argsort(self.target, kind="stable")
        index = order[np.linspace(0, points - 1, count).astype(np.intp)]
        columns = {name: column[index] for name, column in self.columns.items()}
        return Problem(self.law, columns, self.target[index])

    def basis(self, theta: Any) -> tuple[Any, Any, Any]:
        """Return terms [B, m, n] divided by their scales, scales [B, m], the offset [B, n]."""
        count, points = theta.shape[0], self.target.size
        values = self._searched(theta)
        terms = self.law.terms(self.columns, values)
        stacked = np.empty((count, self.num_linear, points), dtype=theta.dtype)
        for number, term in enumerate(terms):
            stacked[:, number, :] = term
        scale = np.sqrt(np.mean(stacked**2, axis=-1))
        offset: Any = 0.0
        if self.law.offset is not None:
            offset = self.law.offset(self.columns, values)
        return stacked / scale[..., None], scale, offset

    def _searched(self, theta: Any) -> dict[str, Any]:
        natural = np.where(self._log, np.exp(np.where(self._log, theta, 0)), theta)
        return {c.name: natural[:, i, None] for i, c in enumerate(self.law.nonlinear)}

    def log_predicted(self, vector: Any) -> Any:
        """Return ln of the predicted target [B, n]; NaN where it is not positive."""
        terms, _, offset = self.basis(vector[:, self.num_linear :])
        return self._log_sum(vector[:, : self.num_linear], terms, offset)

    def _log_sum(self, linear: Any, terms: Any, offset: Any) -> Any:
        total = np.einsum("bm,bmn->bn", linear, terms) + offset
        if self.law.logarithmic:
            return total
        return np.log(np.where(total.real > 0, total, np.nan))

    def with_slopes(
        self, vector: FloatArray, *, exact: bool = True
    ) -> tuple[FloatArray, FloatArray]:
        """Return ln of the predicted target [B, n] and its derivatives [B, n, P].

        Args:
            vector: [B, P].
            exact: Whether searched coefficients are moved along the imaginary axis, which has no
                cancellation, or by a small real step, which takes a fourth of the time.
        """
        linear, theta = vector[:, : self.num_linear], vector[:, self.num_linear :]
        terms, _, offset = self.basis(theta)
        logs = self._log_sum(linear, terms, offset)
        slopes = np.empty((*logs.shape, self.num_coefficients))
        by_linear = np.moveaxis(terms, 1, 2)
        slopes[..., : self.num_linear] = (
            by_linear if self.law.logarithmic else by_linear / np.exp(logs)[..., None]
        )
        for number in range(self.num_nonlinear):
            shifted = theta.astype(complex if exact else float)
            shifted[:, number] += 1j * _STEP if exact else _REAL_STEP
            moved_terms, _, moved_offset = self.basis(shifted)
            moved = self._log_sum(linear, moved_terms, moved_offset)
            slope = moved.imag / _STEP if exact else (moved - logs) / _REAL_STEP
            slopes[..., self.num_linear + number] = slope
        return logs, slopes

    def coefficients(self, vector: FloatArray) -> FloatArray:
        """Return the law's own coefficients [B, P] of vectors [B, P]."""
        theta = vector[:, self.num_linear :]
        _, scale, _ = self.basis(theta)
        natural = np.where(self._log, np.exp(np.where(self._log, theta, 0)), theta)
        return np.concatenate([vector[:, : self.num_linear] / scale, natural], axis=1)

    def vector(self, coefficients: FloatArray) -> FloatArray:
        """Return the vectors [B, P] of the law's own coefficients [B, P]."""
        natural = coefficients[:, self.num_linear :]
        theta = np.where(self._log, np.log(np.where(self._log, natural, 1)), natural)
        _, scale, _ = self.basis(theta)
        return np.concatenate([coefficients[:, : self.num_linear] * scale, theta], axis=1)


def _scaled(value: float, log: bool) -> float:
    return float(np.log(value)) if log else value
