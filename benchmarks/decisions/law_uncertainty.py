"""What a law's resamples say of a choice among priced models."""

import numpy as np

from benchmarks.decisions.best_first import Priced
from benchmarks.decisions.model_columns import losses
from benchmarks.laws.fitted_law import FittedLaw
from benchmarks.laws.law import FloatArray
from benchmarks.laws.predict import interval


def loss_interval(fitted: FittedLaw, one: Priced) -> list[float] | None:
    """Return the 95% bootstrap interval of a model's loss; None for published coefficients."""
    drawn = _losses(fitted, one)
    return None if drawn is None else interval([float(x) for x in drawn if np.isfinite(x)])


def best_sizes_intervals(fitted: FittedLaw, priced: list[Priced]) -> dict[str, list[float] | None]:
    """Return 95% intervals of the sizes that resamples choose among the models that were priced."""
    names = [*priced[0].candidate.sizes, "tokens"]
    table = [drawn for one in priced if (drawn := _losses(fitted, one)) is not None]
    if not table:
        return dict.fromkeys(names)
    chosen = [priced[int(number)] for number in np.argmin(np.array(table), axis=0)]
    rows = [one.candidate.sizes | {"tokens": one.price.tokens.value} for one in chosen]
    return {name: interval([row[name] for row in rows]) for name in names}


def _losses(fitted: FittedLaw, one: Priced) -> FloatArray | None:
    """Return a model's losses by each resample; None without any."""
    if fitted.resamples is None or not len(fitted.resamples):
        return None
    names = fitted.law.coefficients
    values = {name: fitted.resamples[:, [i]] for i, name in enumerate(names)}
    return losses(fitted, one.candidate.columns, values, one.price.tokens.value).ravel()
