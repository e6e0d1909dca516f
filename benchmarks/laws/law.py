"""What a scaling law is: a sum of terms, linear in some coefficients and not in the others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.laws.conventions import Conventions

FloatArray = NDArray[np.float64]
Columns = Mapping[str, FloatArray]
"""Quantities of points by name, each [points]."""
Values = Mapping[str, Any]
"""Coefficients by name: numbers, or arrays [fits, 1]; complex where a slope is taken."""
Terms = Callable[[Columns, Values], Sequence[Any]]


@dataclass(frozen=True, kw_only=True)
class Linear:
    """A coefficient that multiplies one term."""

    name: str
    positive: bool = True
    """Whether it is at least 0."""


@dataclass(frozen=True, kw_only=True)
class Nonlinear:
    """A coefficient inside terms: an exponent, a knee."""

    name: str
    seeds: tuple[float, ...]
    """Where fits start."""
    low: float
    high: float
    """A fit that ends at one of these bounds has not found it."""
    log: bool = False
    """Whether it is searched on a logarithmic scale; it is positive then."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """Coefficients that somebody published."""

    name: str
    source: str
    values: Mapping[str, float]
    checked: str
    """Where the numbers were read: "primary" text or data, or "secondary"."""
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Of the columns of the runs that they were fitted to, where the source states them."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """What may be chosen under a limit of FLOPs: a size, tokens, and dials with candidates."""

    size: str
    """The column that is varied freely."""
    active: Callable[[Columns], Any]
    """Active parameters of points, for 6 N D."""
    dials: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Candidates of the other columns; those of the fitted points take their place."""
    derived: Mapping[str, Callable[[Columns], Any]] = field(default_factory=dict)
    """Columns that follow from size and dials."""
    fixed_tokens: float | None = None
    """Tokens where the law has none of its own."""
    expansions: tuple[int, ...] = ()
    """Width of all experts over that of the active ones in the law's models, where it has no column
    that tells; empty: its columns tell, or it is of dense models."""


@dataclass(frozen=True, kw_only=True)
class Law:
    """A loss (or a leverage) as a function of sizes, tokens and sparsity."""

    name: str
    title: str
    formula: str
    source: str
    conventions: Conventions
    columns: tuple[str, ...]
    linear: tuple[Linear, ...]
    nonlinear: tuple[Nonlinear, ...]
    terms: Terms
    """One array for each of `linear`, in their order."""
    offset: Callable[[Columns, Values], Any] | None = None
    """A term without a linear coefficient."""
    logarithmic: bool = False
    """Whether the sum is the natural logarithm of the target instead of the target."""
    target: str = "loss"
    """The column that the law gives."""
    published: tuple[Published, ...] = ()
    space: Space | None = None
    notes: tuple[str, ...] = ()

    @property
    def coefficients(self) -> tuple[str, ...]:
        """Names, the linear ones first."""
        return (*(c.name for c in self.linear), *(c.name for c in self.nonlinear))

    def predict(self, columns: Columns, values: Values) -> Any:
        """Return the target of points, [points], or [fits, points] for coefficients [fits, 1]."""
        total = 0.0 if self.offset is None else self.offset(columns, values)
        for coefficient, term in zip(self.linear, self.terms(columns, values), strict=True):
            total = total + values[coefficient.name] * term
        return np.exp(total) if self.logarithmic else total


def power(base: Any, exponent: Any) -> Any:
    """Return base^exponent of a positive base; the exponent may be complex."""
    return np.exp(exponent * np.log(base))


def grid(low: float, high: float, steps: int) -> tuple[float, ...]:
    """Return `steps` numbers from `low` to `high`, evenly spaced."""
    return tuple(float(x) for x in np.linspace(low, high, steps))
