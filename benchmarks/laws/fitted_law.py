"""A law with coefficients: read from what `moe fit` printed, or published."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.errors import BenchmarkError
from benchmarks.laws.fit_document import FORMAT
from benchmarks.laws.fitting.fit import Fit
from benchmarks.laws.fitting.penalty import find_penalty
from benchmarks.laws.fitting.problem import Problem
from benchmarks.laws.law import FloatArray, Law
from benchmarks.laws.registry import LAWS, find_law, find_published
from data.storage.bounded_json import read_json

RANGE_VALUES = 9


@dataclass(frozen=True)
class FittedLaw:
    """A law with coefficients, read from a file or published."""

    law: Law
    values: dict[str, float]
    origin: str
    resamples: FloatArray | None = None
    """[B, P]."""
    ranges: Mapping[str, tuple[float, float]] | None = None
    candidates: Mapping[str, tuple[float, ...]] | None = None
    fit: Fit | None = None
    """With its points; `None` if they were too many to keep, or are not published."""
    document: Mapping[str, Any] | None = None
    """What `moe fit --json` printed; `None` of published coefficients."""

    def dial_values(self) -> dict[str, tuple[float, ...]]:
        """Return each dial's values: those of the fitted points, or the law's own candidates.

        Of a dial with many values, `RANGE_VALUES` between its least and its greatest; a dial
        that has none is empty.
        """
        found: dict[str, tuple[float, ...]] = {}
        for name, own in (self.law.space.dials if self.law.space else {}).items():
            is_fitted = self.candidates is not None and name in self.law.columns
            values = self.candidates.get(name, ()) if is_fitted and self.candidates else own
            if not values and self.ranges and name in self.ranges:
                values = tuple(float(v) for v in np.linspace(*self.ranges[name], RANGE_VALUES))
            found[name] = tuple(values)
        return found


def find_fitted(name: str) -> FittedLaw:
    """Return the law of a file that `moe fit --json` printed, or of published coefficients.

    Raises:
        BenchmarkError: There is neither.
    """
    path = Path(name)
    if path.is_file():
        return read_fit(path)
    published = find_published(name)
    if published is None:
        names = [p.name for law in LAWS.values() for p in law.published]
        raise BenchmarkError(
            f"{name}: no such file, nor published coefficients; there are {', '.join(names)}"
        )
    law, coefficients = published
    origin = f"published: {coefficients.source}"
    return FittedLaw(law, dict(coefficients.values), origin, ranges=coefficients.ranges or None)


def read_fit(path: Path) -> FittedLaw:
    """Read what `moe fit --json` printed.

    Raises:
        BenchmarkError: It is no such document; names what is wrong.
    """
    document = read_json(path, BenchmarkError)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        several = isinstance(document, dict) and "comparison" in document
        hint = "it compares laws: fit one" if several else "give the output of moe fit --json"
        raise BenchmarkError(f"{path}: not a fitted law ({FORMAT!r}): {hint}")
    try:
        return _read(document, str(path))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, BenchmarkError):
            raise BenchmarkError(f"{path}: {error}") from None
        raise BenchmarkError(f"{path}: damaged ({error}): fit again") from None


def _read(document: Mapping[str, Any], origin: str) -> FittedLaw:
    law = find_law(document["law"])
    values = {name: float(document["coefficients"][name]) for name in law.coefficients}
    resamples = np.array(document["resamples"], dtype=float).reshape(-1, len(values))
    if not np.isfinite([*values.values()]).all() or not np.isfinite(resamples).all():
        raise ValueError("a coefficient is not finite")
    ranges = {n: (float(low), float(high)) for n, (low, high) in document["ranges"].items()}
    candidates = {n: tuple(map(float, vs)) for n, vs in document["candidates"].items()}
    fit = _fit(law, values, document)
    return FittedLaw(law, values, origin, resamples, ranges, candidates, fit, document)


def _fit(law: Law, values: Mapping[str, float], document: Mapping[str, Any]) -> Fit | None:
    """Return the fit with its points, where the document keeps them."""
    data = document["data"]
    if data is None:
        return None
    columns = {name: np.array(data[name], dtype=float) for name in law.columns}
    target = np.array(data[law.target], dtype=float)
    if {column.shape for column in columns.values()} != {target.shape} or target.ndim != 1:
        raise ValueError("columns of points differ in length")
    problem = Problem(law, columns, target)
    vector = problem.vector(np.array([[values[name] for name in law.coefficients]]))[0]
    return Fit(law, problem, find_penalty(document["loss"]), vector)
