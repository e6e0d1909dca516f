"""A law on points as a function of one vector: scaled linear coefficients, then the searched ones.

Legend: B fits at once, n points, m linear and k nonlinear coefficients, P = m + k.

A term is divided by its root mean square over the points, and its coefficient is multiplied by it:
A / N^alpha becomes u (N / N0)^-alpha in effect. That takes out most of the correlation between A
and alpha, for which five-dimensional fits of Chinchilla's law are known to be ill-conditioned.
"""

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.laws.law import Columns, FloatArray, Law

_STEP = 1e-30
_REAL_STEP = 1e-7
_PROBE = 0.0173
"""By how much a coefficient is moved to see which terms it changes."""


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

    @cached_property
    def _moved_together(self) -> list[dict[int, NDArray[np.intp]]]:
        """Groups of searched coefficients that change no common term, each with its terms.

        One evaluation with a whole group moved gives the slopes of all its coefficients (Curtis,
        Powell & Reid 1974). The offset counts as the last term.
        """
        seeds = [_scaled(c.seeds[0], c.log) for c in self.law.nonlinear]
        bounds = self.low[self.num_linear :], self.high[self.num_linear :]
        here = np.clip(np.array(seeds) * (1 + _PROBE) + _PROBE, *bounds)
        moved = here + _PROBE * np.eye(self.num_nonlinear)
        with np.errstate(all="ignore"):
            before, after = (self._with_offset(*self.basis(t)) for t in (here[None], moved))
        changed = ((after != before) | ~np.isfinite(after)).any(axis=-1)
        groups: list[dict[int, NDArray[np.intp]]] = []
        for number, terms in enumerate(changed):
            free = (g for g in groups if not any(terms[other].any() for other in g.values()))
            group = next(free, None)
            if group is None:
                group = {}
                groups.append(group)
            group[number] = np.flatnonzero(terms)
        return groups

    def _with_offset(self, terms: Any, _: Any, offset: Any) -> Any:
        """Return terms and the offset after them, [B, m + 1, n]."""
        shape = (terms.shape[0], 1, self.target.size)
        last = np.broadcast_to(np.asarray(offset), shape[::2])[:, None]
        return np.concatenate([terms, last], axis=1)

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
        scale = np.sqrt(np.einsum("bmn,bmn->bm", stacked, stacked) / points)
        offset: Any = 0.0
        if self.law.offset is not None:
            offset = self.law.offset(self.columns, values)
        stacked /= scale[..., None]
        return stacked, scale, offset

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
        per_loss: Any = 1.0 if self.law.logarithmic else 1 / np.exp(logs)
        slopes = np.empty((len(vector), self.num_coefficients, self.target.size))
        np.multiply(
            terms,
            per_loss if self.law.logarithmic else per_loss[:, None],
            out=slopes[:, : self.num_linear],
        )
        step = _STEP if exact else _REAL_STEP
        for group in self._moved_together:
            shifted = theta.astype(complex if exact else float)
            shifted[:, list(group)] += 1j * step if exact else step
            moved, _, moved_offset = self.basis(shifted)
            for number, own in group.items():
                slope = slopes[:, self.num_linear + number]
                slope[:] = 0.0
                for term in own:
                    if term == self.num_linear:
                        change = moved_offset.imag if exact else moved_offset - offset
                        slope += change
                    else:
                        change = moved[:, term].imag if exact else moved[:, term] - terms[:, term]
                        slope += linear[:, term, None] * change
                slope *= per_loss / step
        # [B, P, n] in memory: a coefficient's slopes lie together
        return logs, np.swapaxes(slopes, 1, 2)

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
