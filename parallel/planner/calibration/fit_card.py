"""Fits a card's kernel parameters on the tables, stage by stage: few parameters, all rows.

Parameters move in logarithms around where they start (what the architecture's manuals say), so that
one that no row depends on stays there. Shares cannot pass 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from parallel.hardware.card import Card
from parallel.planner.calibration.card_parameters import get_parameter, with_parameters
from parallel.planner.calibration.least_squares import Vector, fit_least_squares
from parallel.planner.calibration.samples import Sample

_PULL = 0.3
"""Weight of a parameter's distance from its start, as ln: a tenth of one percent of the rows."""
_TERM = "terms."


@dataclass(frozen=True)
class Fitted:
    """A card with fitted parameters, and the tables' own terms."""

    card: Card
    terms: Mapping[str, float]


def fit_parameters(start: Fitted, samples: Sequence[Sample], names: Sequence[str]) -> Fitted:
    """Return the parameters for which predictions of the samples are nearest, as ratios.

    `names` are `card_parameters`' names, or those of terms with `terms.` before them.
    """
    measured = np.log([sample.seconds for sample in samples])
    weights = np.array([sample.weight for sample in samples])
    first = np.array([_to_free(name, _get(start, name)) for name in names])

    def residuals(free: Vector) -> Vector:
        tried = _with(start, names, free)
        predicted = [sample.predict(tried.card, tried.terms) for sample in samples]
        return np.concatenate([weights * (np.log(predicted) - measured), _PULL * (free - first)])

    return _with(start, names, fit_least_squares(residuals, first).parameters)


def _get(fitted: Fitted, name: str) -> float:
    if name.startswith(_TERM):
        return fitted.terms[name.removeprefix(_TERM)]
    return get_parameter(fitted.card, name)


def _with(fitted: Fitted, names: Sequence[str], free: Vector) -> Fitted:
    values = {name: _from_free(name, float(x)) for name, x in zip(names, free, strict=True)}
    terms = {n.removeprefix(_TERM): v for n, v in values.items() if n.startswith(_TERM)}
    changes = {n: v for n, v in values.items() if not n.startswith(_TERM)}
    return Fitted(with_parameters(fitted.card, changes), {**fitted.terms, **terms})


def _is_share(name: str) -> bool:
    return name.endswith("efficiency")


def _to_free(name: str, value: float) -> float:
    """Return a value as the number that the fit moves: ln, or logit for shares, or ln(x - 1)."""
    if _is_share(name):
        return float(np.log(value / (1.0 - value)))
    if name.endswith("_stretch"):
        return float(np.log(value - 1.0))
    return float(np.log(value))


def _from_free(name: str, free: float) -> float:
    if _is_share(name):
        return float(1.0 / (1.0 + np.exp(-free)))
    if name.endswith("_stretch"):
        return float(1.0 + np.exp(free))
    return float(np.exp(free))
