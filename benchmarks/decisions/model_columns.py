"""A model in a law's columns, and its loss by the law."""

from typing import Any

import numpy as np

from benchmarks.laws.fitted_law import FittedLaw
from benchmarks.laws.law import Columns, FloatArray
from benchmarks.laws.law_columns import law_columns
from benchmarks.laws.model_sizes import counted_sizes
from benchmarks.laws.points import Points
from moe.config.model import ModelConfig
from moe.cost.ledger import Ledger

GROWING = ("tokens", "flops")
"""Columns that grow with training tokens."""


def model_columns(
    fitted: FittedLaw, name: str, model: ModelConfig, costs: Ledger, bits: float
) -> Columns:
    """Return a model in the columns and conventions of a law, [1] each, for one training token.

    Raises:
        BenchmarkError: The law needs a quantity that the model does not have.
    """
    values = counted_sizes(costs.as_json(), model.model_dump(exclude_none=True))
    values |= {"tokens": 1.0, "bits": bits}
    columns = {key: np.array([value]) for key, value in values.items()}
    return law_columns(fitted.law, Points(name, columns, {"embeddings": "in"}, (1,)), [])


def trained(columns: Columns, tokens: Any) -> dict[str, FloatArray]:
    """Return a model's columns after so many tokens, [tokens] each."""
    count = np.atleast_1d(np.asarray(tokens, dtype=float))
    return {
        name: column * count if name in GROWING else np.broadcast_to(column, count.shape)
        for name, column in columns.items()
    }


def losses(fitted: FittedLaw, columns: Columns, values: Any, tokens: Any) -> FloatArray:
    """Return the losses of a model after so many tokens; infinite where the law has none.

    Args:
        fitted: The law.
        columns: The model's.
        values: Coefficients, the law's own or those of resamples, [resamples, 1] each.
        tokens: Training tokens.
    """
    with np.errstate(all="ignore"):
        found = np.asarray(fitted.law.predict(trained(columns, tokens), values), dtype=float)
    return np.where(np.isfinite(found) & (found > 0) & (np.asarray(tokens) > 0), found, np.inf)
